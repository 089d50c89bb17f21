// What advance.cc tells the code of its targets (the advance_*-inl.h) to do.

#ifndef FISHERD_CORE_KERNELS_ADVANCE_JOB_H_
#define FISHERD_CORE_KERNELS_ADVANCE_JOB_H_

#include <cstdint>
#include <span>

#include "core/kernels/advance.h"

namespace fisherd::kernels {

// One tile, and a pass of chains.
template <typename T>
struct Pass {
  std::span<const typename AdvancePlan<T>::Chain> chains;      // 1 to kPassChains
  std::span<const typename AdvancePlan<T>::Segment> segments;  // what chains count in
  double weights[kPassChains] = {};                            // of the runs that the chains make
  int runs = 0;
  bool narrow = false;  // one run, which meets the state in T
  bool begins = false;  // else there are sums of the chains before
  bool ends = false;    // meets the state, else leaves sums
  double decay = 0;
  int64_t left_cols = 0;
  int64_t cols = 0;  // of the state
  typename AdvancePlan<T>::Tile tile;
  const T* from = nullptr;  // whole states
  T* to = nullptr;
  double* sums = nullptr;  // of the tile's rows, sums_stride apart
  int64_t sums_stride = 0;

  std::span<const typename AdvancePlan<T>::Segment> segments_of(
      const typename AdvancePlan<T>::Chain& chain) const {
    return segments.subspan(chain.first_segment, chain.segments);
  }
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
