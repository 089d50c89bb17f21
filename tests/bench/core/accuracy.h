// How far the results lie from those in wider floats.

#ifndef FISHERD_TESTS_BENCH_CORE_ACCURACY_H_
#define FISHERD_TESTS_BENCH_CORE_ACCURACY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace fisherd::bench {

// Of the first step in float32, from zeros, over all elements.
struct StepError {
  int64_t rows = 0;
  double relative = 0;  // the largest
};
std::vector<StepError> StepErrors();

// Of (v + λ)^exponent over random v from 2^-40 to 2^40.
struct PowerError {
  std::string dtype;
  double exponent = 0;
  double relative = 0;  // the largest
  double ulps = 0;      // the largest, in units of the last place of the true result
  bool exact = false;   // one of the exponents that have instructions of their own
};
std::vector<PowerError> PowerErrors();

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_ACCURACY_H_
