// The squares that a peer's product needs, as fast as a plain loop can make them: compiled for
// this very processor.

#ifndef FISHERD_TESTS_BENCH_CORE_SQUARES_H_
#define FISHERD_TESTS_BENCH_CORE_SQUARES_H_

#include <cstdint>
#include <span>

namespace fisherd::bench {

// to[k] = Σ_s from_s[k]², for first ≤ k < last, in one pass.
void SumOfSquares(std::span<const float* const> from, int64_t first, int64_t last, float* to);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_SQUARES_H_
