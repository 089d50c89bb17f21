// What must hold, and whether it does.

#ifndef FISHERD_TESTS_BENCH_CORE_CLAIMS_H_
#define FISHERD_TESTS_BENCH_CORE_CLAIMS_H_

#include <span>
#include <string>
#include <vector>

#include "tests/bench/core/accuracy.h"
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

struct Claim {
  std::string what;
  double figure = 0;
  double bound = 0;
  bool at_least = true;  // else at most
  std::string where;     // the case that the figure is of, if it is one case's
  int cases = 0;         // that it was made of

  bool holds() const { return at_least ? figure >= bound : figure <= bound; }
};

// Those that the measurements can tell something about.
std::vector<Claim> Claims(const Measurements& measured);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_CLAIMS_H_
