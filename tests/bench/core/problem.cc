#include "tests/bench/core/problem.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace fisherd::bench {

std::unique_ptr<core::Matrix> NewState(const Case& sizes) {
  auto state = core::Matrix::New({.rows = sizes.state_rows(), .cols = sizes.outputs});
  if (state == nullptr) Die("out of memory");
  state->Fill(0).IgnoreError();
  return state;
}

void FillRandom(std::span<float> numbers, uint32_t seed) {
  // Repeated after a million: making each one anew would take longer than the timing.
  constexpr size_t kPeriod = 1'000'003;
  std::minstd_rand random(seed + 1);
  std::uniform_real_distribution<float> magnitude(0.5f, 1.5f);
  const size_t fresh = std::min(numbers.size(), kPeriod);
  for (size_t k = 0; k < fresh; ++k) {
    numbers[k] = random() & 0x10000 ? magnitude(random) : -magnitude(random);
  }
  for (size_t k = fresh; k < numbers.size(); ++k) numbers[k] = numbers[k - fresh];
}

Problem::Problem(const Case& sizes)
    : sizes(sizes),
      inputs_(sizes.depth() * sizes.inputs),
      state_(NewState(sizes)),
      squared_inputs_(sizes.depth() * sizes.inputs),
      squared_grads_(sizes.depth() * sizes.outputs),
      product_(sizes.state_size()),
      ones_(sizes.depth()) {
  FillRandom(inputs_.span(), 0);
  for (int source = 0; source < sizes.sources; ++source) {
    grads_.emplace_back(sizes.depth() * sizes.outputs);
    FillRandom(grads_.back().span(), source + 1);
  }
  std::ranges::fill(ones_.span(), 1.0f);
  Reset();
}

void Problem::Reset() {
  FillRandom(state_->elements<float>(), 100);
  for (float& v : state_->elements<float>()) v = std::abs(v);
}

}  // namespace fisherd::bench
