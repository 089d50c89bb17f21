// What must hold, and whether it does.

#ifndef FISHERD_TESTS_BENCH_CORE_CLAIMS_H_
#define FISHERD_TESTS_BENCH_CORE_CLAIMS_H_

#include <vector>

#include "tests/bench/core/accuracy.h"
#include "tests/bench/core/claim.h"
#include "tests/bench/core/contest.h"
#include "tests/bench/core/multiply.h"

namespace fisherd::bench {

// All that was measured.
struct Measurements {
  std::vector<Result> results;
  std::vector<MultiplyResult> multiplies;
  std::vector<StepError> step_errors;
  std::vector<PowerError> power_errors;
};

// Those that the measurements can tell something about.
std::vector<Claim> Claims(const Measurements& measured);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_CLAIMS_H_
