// How rows of squares lie in memory for the product to read them at full speed.

#ifndef FISHERD_CORE_KERNELS_PACKED_H_
#define FISHERD_CORE_KERNELS_PACKED_H_

#include <algorithm>
#include <cstdint>

namespace fisherd::kernels {

// Elements of a cache line, which is also the widest vector.
template <typename T>
inline constexpr int64_t kLine = 64 / sizeof(T);

// A matrix [rows, cols] cut into panels of `panel_lines` (one of the two below) lines of columns,
// the last one narrower: a panel holds its columns of every row, row after row. The last line of
// columns is padded with zeros. The same for every target, so that a batch outlives a change of
// target.
struct PackedShape {
  int64_t rows = 0;
  int64_t cols = 0;
  int panel_lines = 1;

  bool operator==(const PackedShape&) const = default;
};

// The left side of a product, whose elements are broadcast, and the right side, which is read by
// vectors: three of the widest, and every target's registers divide that.
inline constexpr int kLeftPanelLines = 1;
inline constexpr int kRightPanelLines = 3;

// Elements that a matrix of this shape takes, padding and all.
template <typename T>
constexpr int64_t PackedSize(const PackedShape& shape) {
  return shape.rows * ((shape.cols + kLine<T> - 1) / kLine<T> * kLine<T>);
}

// Columns of the panel that begins at column `first`, padding and all.
template <typename T>
constexpr int64_t PanelWidth(const PackedShape& shape, int64_t first) {
  const int64_t lines = (shape.cols - first + kLine<T> - 1) / kLine<T>;
  return std::min<int64_t>(lines, shape.panel_lines) * kLine<T>;
}

// Where the panel begins whose first column is `first`.
template <typename T>
constexpr int64_t PanelOffset(const PackedShape& shape, int64_t first) {
  return shape.rows * first;
}

// Where an element lies.
template <typename T>
constexpr int64_t PackedIndex(const PackedShape& shape, int64_t row, int64_t col) {
  const int64_t within = col % (shape.panel_lines * kLine<T>);
  const int64_t first = col - within;
  return PanelOffset<T>(shape, first) + row * PanelWidth<T>(shape, first) + within;
}

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_PACKED_H_
