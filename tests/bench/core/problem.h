// The numbers of one case, the same for every contender.

#ifndef FISHERD_TESTS_BENCH_CORE_PROBLEM_H_
#define FISHERD_TESTS_BENCH_CORE_PROBLEM_H_

#include <memory>
#include <vector>

#include "core/matrix.h"
#include "tests/bench/core/case.h"
#include "tests/bench/core/memory.h"

namespace fisherd::bench {

inline constexpr double kDecay = 0.95;
inline constexpr double kWeight = 0.05;

// Random tensors, none of whose numbers or results is subnormal, and one state that the contenders
// take turns with. The towers' rows lie one after another, so whoever likes may take them as one.
class Problem {
 public:
  explicit Problem(const Case& sizes);

  const Case sizes;
  // The mean over the towers of each one's product over its rows: what every row counts.
  double scale() const { return 1.0 / sizes.depth(); }

  const float* inputs() const { return inputs_.data(); }  // [depth, I]
  const float* grads(int source) const {                  // [depth, O]
    return grads_[source].data();
  }
  // [H, O], in memory as the product keeps it.
  core::Matrix& matrix() { return *state_; }
  float* state() { return state_->elements<float>().data(); }
  // State as it was at first.
  void Reset();

  // For the peers, who need somewhere to put their squares and products.
  float* squared_inputs() { return squared_inputs_.data(); }  // [depth, I]
  float* squared_grads() { return squared_grads_.data(); }    // [depth, O]
  float* product() { return product_.data(); }                // [H, O]
  const float* ones() const { return ones_.data(); }          // [depth]

 private:
  Array<float> inputs_;
  std::vector<Array<float>> grads_;
  const std::unique_ptr<core::Matrix> state_;
  Array<float> squared_inputs_;
  Array<float> squared_grads_;
  Array<float> product_;
  Array<float> ones_;
};

// A state's memory, touched.
std::unique_ptr<core::Matrix> NewState(const Case& sizes);

// Numbers between ½ and 3/2 of either sign.
void FillRandom(std::span<float> numbers, uint32_t seed);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_PROBLEM_H_
