// Squares on a device lie as they do on the host (kernels/packed.h), in panels of columns.

#ifndef FISHERD_CORE_CUDA_PACKED_CUH_
#define FISHERD_CORE_CUDA_PACKED_CUH_

#include <cstdint>

#include "core/kernels/packed.h"

namespace fisherd::cuda {

// One column: element `row` is at first[row·stride].
template <typename T>
struct Column {
  const T* first;
  int64_t stride;
};

// `col` is below PaddedCols. Those that follow it within 16 bytes lie beside it.
template <typename T, int kPanelLines>
__device__ inline Column<T> ColumnOf(const T* side, int64_t rows, int64_t cols, int64_t col) {
  const kernels::PackedShape shape{rows, cols, kPanelLines};
  const int64_t within = col % (kPanelLines * kernels::kLine<T>);
  const int64_t first = col - within;
  return {side + kernels::PanelOffset<T>(shape, first) + within,
          kernels::PanelWidth<T>(shape, first)};
}

template <typename T>
__device__ inline Column<T> LeftColumn(const T* side, int64_t rows, int64_t cols, int64_t col) {
  return ColumnOf<T, kernels::kLeftPanelLines>(side, rows, cols, col);
}
template <typename T>
__device__ inline Column<T> RightColumn(const T* side, int64_t rows, int64_t cols, int64_t col) {
  return ColumnOf<T, kernels::kRightPanelLines>(side, rows, cols, col);
}

// Columns with the zeros that fill the last line.
template <typename T>
constexpr int64_t PaddedCols(int64_t cols) {
  return (cols + kernels::kLine<T> - 1) / kernels::kLine<T> * kernels::kLine<T>;
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_PACKED_CUH_
