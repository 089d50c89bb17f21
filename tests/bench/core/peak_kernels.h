// Loops that do one thing as fast as the processor can.

#ifndef FISHERD_TESTS_BENCH_CORE_PEAK_KERNELS_H_
#define FISHERD_TESTS_BENCH_CORE_PEAK_KERNELS_H_

#include <cstdint>

namespace fisherd::bench {

// Independent chains of multiply-adds in registers; returns the operations done. T is float or
// double.
template <typename T>
double RunFma(int64_t rounds);

// a = b + s·c with ordinary stores, over `count` elements aligned to a cache line, a multiple
// of 16.
void RunTriad(float* a, const float* b, const float* c, int64_t count);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_PEAK_KERNELS_H_
