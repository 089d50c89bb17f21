// One thing that must hold, and whether it does.

#ifndef FISHERD_TESTS_BENCH_CORE_CLAIM_H_
#define FISHERD_TESTS_BENCH_CORE_CLAIM_H_

#include <string>
#include <vector>

#include "tests/bench/core/json_object.h"

namespace fisherd::bench {

struct Claim {
  std::string what;
  double figure = 0;
  double bound = 0;
  bool at_least = true;  // else at most
  std::string where;     // the case that the figure is of, if it is one case's
  int cases = 0;         // that it was made of

  bool holds() const { return at_least ? figure >= bound : figure <= bound; }
};

void PrintClaims(const std::vector<Claim>& claims);
Object ClaimObject(const Claim& claim);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_CLAIM_H_
