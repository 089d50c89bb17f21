// The kernel behind the reads, against the memory that it reads and writes.

#ifndef FISHERD_TESTS_BENCH_CORE_MULTIPLY_H_
#define FISHERD_TESTS_BENCH_CORE_MULTIPLY_H_

#include <vector>

#include "core/compute_pool.h"
#include "tests/bench/core/machine.h"

namespace fisherd::bench {

// (v + λ)^exponent ∘ x of float32 arrays beyond the caches.
struct MultiplyResult {
  double exponent = 0;
  int threads = 1;
  double seconds = 0;
  double bandwidth = 0;    // v and x read, the product written: bytes per second
  double triad_share = 0;  // of triad's on as many threads
};

// On the caller's thread and the helpers'; null: on the caller's alone.
std::vector<MultiplyResult> TimeMultiply(const Machine& machine, core::ComputePool* helpers);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_MULTIPLY_H_
