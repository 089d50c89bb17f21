// Many factors, of which a step is about a few.

#ifndef FISHERD_TESTS_BENCH_STREAM_FACTORS_H_
#define FISHERD_TESTS_BENCH_STREAM_FACTORS_H_

#include <string>
#include <vector>

#include "tests/bench/core/claim.h"

namespace fisherd::bench {

struct FactorsResult {
  int updated = 0;          // factors that every step updates
  int many = 0;             // factors of the server that has more
  double few_seconds = 0;   // of a step, where there are no others
  double many_seconds = 0;  // where there are
};

FactorsResult MeasureFactors(const std::string& fisherd, bool quick);

void PrintFactors(const FactorsResult& result);
std::vector<Claim> FactorsClaims(const FactorsResult& result);
std::string FactorsJson(const FactorsResult& result, const std::vector<Claim>& claims);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_FACTORS_H_
