// More than the server has memory for.

#ifndef FISHERD_TESTS_BENCH_STREAM_OVERLOAD_H_
#define FISHERD_TESTS_BENCH_STREAM_OVERLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/core/claim.h"

namespace fisherd::bench {

// What a load did to a server.
struct Load {
  double seconds = 0;
  std::vector<int64_t> batches;        // that ended, of each trainer
  double bytes_per_second = 0;         // of those
  std::vector<double> health_seconds;  // of each question, sorted
  int64_t idle_resident_bytes = 0;     // before the trainers came
  int64_t peak_resident_bytes = 0;
};

struct OverloadResult {
  Load tight;   // with a budget that is a quarter of what is pushed together
  Load before;  // with enough for all
  Load after;   // likewise

  double ample_bytes_per_second() const {
    return (before.bytes_per_second + after.bytes_per_second) / 2;
  }
};

// Trainers push for `seconds` with a small budget, and for a quarter of it before and after with an
// ample one.
OverloadResult MeasureOverload(const std::string& fisherd, double seconds);

void PrintOverload(const OverloadResult& result);
std::vector<Claim> OverloadClaims(const OverloadResult& result);
std::string OverloadJson(const OverloadResult& result, const std::vector<Claim>& claims);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_OVERLOAD_H_
