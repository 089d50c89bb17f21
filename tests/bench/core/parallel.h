// One loop over some threads, for whoever brings no threads of their own.

#ifndef FISHERD_TESTS_BENCH_CORE_PARALLEL_H_
#define FISHERD_TESTS_BENCH_CORE_PARALLEL_H_

#include <cstdint>
#include <functional>

#include "core/compute_pool.h"

namespace fisherd::bench {

// Fewer elements than this are done sooner than another thread has woken up.
inline constexpr int64_t kWorthAThread = 1 << 15;

// work(0) … work(count − 1), by the caller and the pool's workers; a null pool has none.
inline void Parallel(core::ComputePool* pool, int64_t count,
                     const std::function<void(int64_t)>& work) {
  if (pool != nullptr && count > 1) {
    pool->ParallelFor(count, work);
  } else {
    for (int64_t i = 0; i < count; ++i) work(i);
  }
}

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_PARALLEL_H_
