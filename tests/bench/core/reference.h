// What a step should come to, in 64-bit floats.

#ifndef FISHERD_TESTS_BENCH_CORE_REFERENCE_H_
#define FISHERD_TESTS_BENCH_CORE_REFERENCE_H_

#include "tests/bench/core/problem.h"

namespace fisherd::bench {

// The element `at` of the state after one step from what it is now.
inline double NextElement(Problem& problem, int64_t at) {
  const Case& sizes = problem.sizes;
  const int64_t input = at / sizes.outputs;
  const int64_t output = at % sizes.outputs;
  double sum = 0;
  for (int64_t row = 0; row < sizes.depth(); ++row) {
    const double a = input < sizes.inputs ? problem.inputs()[row * sizes.inputs + input] : 1.0;
    double squares = 0;
    for (int source = 0; source < sizes.sources; ++source) {
      const double g = problem.grads(source)[row * sizes.outputs + output];
      squares += g * g;
    }
    sum += a * a * squares;
  }
  return kDecay * problem.state()[at] + kWeight * problem.scale() * sum;
}

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_REFERENCE_H_
