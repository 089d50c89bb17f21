#include "tests/bench/core/multiply.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/kernels/power.h"
#include "tests/bench/core/memory.h"
#include "tests/bench/core/parallel.h"
#include "tests/bench/core/problem.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {

std::vector<MultiplyResult> TimeMultiply(const Machine& machine, core::ComputePool* helpers) {
  constexpr int64_t kPart = 1 << 18;
  const int64_t parts = machine.large_array_bytes() / sizeof(float) / kPart;
  Array<float> matrix(parts * kPart), x(parts * kPart), out(parts * kPart);
  FillRandom(matrix.span(), 0);
  FillRandom(x.span(), 1);
  for (float& v : matrix.span()) v = std::abs(v);

  const int threads = helpers == nullptr ? 1 : helpers->threads() + 1;
  const std::vector<double> exponents = {-1, -0.5, -0.75};
  std::vector<Contender> contenders;
  for (const double exponent : exponents) {
    const kernels::PowerSpec spec{.powered = true, .exponent = exponent, .damping = 1e-3};
    const auto step = [&, spec] {
      Parallel(helpers, parts, [&](int64_t part) {
        float largest = 0;
        kernels::PowerMultiply<float>(
            spec, matrix.data() + part * kPart,
            reinterpret_cast<const std::byte*>(x.data() + part * kPart), kPart,
            reinterpret_cast<std::byte*>(out.data() + part * kPart), largest);
      });
    };
    step();
    contenders.push_back({absl::StrCat(exponent), TurnOf(step, threads)});
  }
  const std::vector<double> medians = TimeInTurns(contenders, 9);
  std::vector<MultiplyResult> results;
  for (size_t k = 0; k < exponents.size(); ++k) {
    const double bandwidth = 3.0 * matrix.size() * sizeof(float) / medians[k];
    results.push_back({.exponent = exponents[k],
                       .threads = threads,
                       .seconds = medians[k],
                       .bandwidth = bandwidth,
                       .triad_share = bandwidth / machine.peaks.at(threads).bandwidth});
  }
  return results;
}

}  // namespace fisherd::bench
