// What programs read of it.

#ifndef FISHERD_TESTS_BENCH_CORE_JSON_H_
#define FISHERD_TESTS_BENCH_CORE_JSON_H_

#include <string>
#include <vector>

#include "tests/bench/core/claims.h"
#include "tests/bench/core/contest.h"
#include "tests/bench/core/machine.h"

namespace fisherd::bench {

// {"machine": {…}, "results": [{"name", "rows", …, "ours_ms", "floor_ms", "peers": {…}}],
//  "multiply": […], "errors": […], "claims": […]}
std::string ToJson(const Machine& machine, const Peers& peers, const Measurements& measured,
                   const std::vector<Claim>& claims);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_JSON_H_
