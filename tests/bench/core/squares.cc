#include "tests/bench/core/squares.h"

#include <algorithm>

namespace fisherd::bench {

void SumOfSquares(std::span<const float* const> from, int64_t first, int64_t last, float* to) {
  // Source by source over a piece that stays in the nearest cache.
  constexpr int64_t kPiece = 2048;
  for (int64_t begin = first; begin < last; begin += kPiece) {
    const int64_t end = std::min(begin + kPiece, last);
    for (const float* source : from) {
      if (source == from.front()) {
        for (int64_t k = begin; k < end; ++k) to[k] = source[k] * source[k];
      } else {
        for (int64_t k = begin; k < end; ++k) to[k] += source[k] * source[k];
      }
    }
  }
}

}  // namespace fisherd::bench
