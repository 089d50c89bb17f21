// What advance.cc tells the code of its targets (the advance*-inl.h) to do.

#ifndef FISHERD_CORE_KERNELS_ADVANCE_JOB_H_
#define FISHERD_CORE_KERNELS_ADVANCE_JOB_H_

#include <cstdint>
#include <span>

#include "core/kernels/advance.h"

namespace fisherd::kernels {

// How a chain meets what is there.
enum class Chaining {
  kOnly,    // there is no other, and T's arithmetic does: into the state
  kSingle,  // there is no other: into the state by way of 64 bits
  kFirst,   // into the sums of chains
  kMiddle,  // onto the sums
  kLast,    // onto the sums, and all into the state
};

// One chain's part in one tile.
template <typename T>
struct ChainJob {
  std::span<const typename AdvancePlan<T>::Segment> segments;
  int64_t depth = 0;  // rows of all segments
  Chaining chaining = Chaining::kOnly;
  double decay = 0;
  double weight = 0;  // weight·scale
  int64_t left_cols = 0;
  int64_t cols = 0;  // of the state
  typename AdvancePlan<T>::Tile tile;
  const T* from = nullptr;  // whole states
  T* to = nullptr;
  double* sums = nullptr;  // of the chains so far: the tile's rows, sums_stride apart
  int64_t sums_stride = 0;
};

// A part of a tile whose sums are in registers at once. The counts are of what there is.
struct Block {
  int64_t row = 0;
  int64_t col = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_ADVANCE_JOB_H_
