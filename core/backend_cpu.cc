#include "core/backend_cpu.h"

#include <Eigen/Core>
#include <algorithm>

#include "core/element_type.h"

namespace fisherd::core {
namespace {

constexpr int kChainRows = 256;

// A tile and its packed rows lie on the stack of whoever computes it: 208 KiB for float64.
constexpr int kTileRows = 64;
constexpr int kTileCols = 128;

// Elements that are summed at once: as many as stay in the registers of a baseline x86-64.
constexpr int kBlockRows = 4;
template <typename T>
constexpr int kBlockCols = 32 / sizeof(T);

// Fewer multiply-adds than this are done sooner than other threads have woken up.
constexpr double kParallelWork = 1 << 18;

template <typename T>
struct Step {
  const AdvanceStep& step;
  const T* from;
  T* to;
  int64_t rows;  // of the state
  int64_t cols;

  int64_t left_cols() const { return step.ones_column ? rows - 1 : rows; }
};

struct Tile {
  int64_t row;
  int64_t col;
  int rows;
  int cols;
};

// Packs columns first … first + count of `depth` rows into a panel `width` wide, with zeros for
// columns that are not there.
template <typename T>
void Pack(const T* from, int64_t stride, int64_t first, int count, int depth, int width, T* panel) {
  for (int n = 0; n < depth; ++n, panel += width) {
    std::copy_n(from + n * stride + first, count, panel);
    std::fill_n(panel + count, width - count, T{0});
  }
}

// Packs a chain's rows of `left` for the tile, in panels of kBlockRows columns.
template <typename T>
void PackLeft(const Step<T>& step, const Tile& tile, const T* left, int depth, T* packed) {
  for (int i = 0; i < tile.rows; i += kBlockRows, packed += depth * kBlockRows) {
    const int64_t first = tile.row + i;
    const int there = std::clamp<int64_t>(step.left_cols() - first, 0, kBlockRows);
    Pack(left, step.left_cols(), first, there, depth, kBlockRows, packed);
    if (there < kBlockRows && step.step.ones_column) {
      for (int n = 0; n < depth; ++n) packed[n * kBlockRows + there] = T{1};
    }
  }
}

// One chain of a block: sums[i, j] = Σ_n left[n, i]·right[n, j], rows in order.
template <typename T>
using Block = Eigen::Array<T, kBlockRows, kBlockCols<T>, Eigen::RowMajor>;

template <typename T>
Block<T> SumChain(const T* left, const T* right, int depth) {
  Block<T> sums = Block<T>::Zero();
  for (int n = 0; n < depth; ++n, left += kBlockRows, right += kBlockCols<T>) {
    const Eigen::Map<const Eigen::Array<T, 1, kBlockCols<T>>, Eigen::Aligned32> row(right);
    for (int i = 0; i < kBlockRows; ++i) sums.row(i) += left[i] * row;
  }
  return sums;
}

// sum += scale · the products of one chain.
template <typename T>
void AddChain(const Step<T>& step, const Tile& tile, const SquaredRows& tower, int64_t first_row,
              double* sum) {
  alignas(64) T left[kChainRows * kTileRows];
  alignas(64) T right[kChainRows * kBlockCols<T>];
  const int depth = std::min<int64_t>(tower.rows - first_row, kChainRows);
  PackLeft(step, tile, static_cast<const T*>(tower.left) + first_row * step.left_cols(), depth,
           left);
  const T* right_rows = static_cast<const T*>(tower.right) + first_row * step.cols;
  for (int j = 0; j < tile.cols; j += kBlockCols<T>) {
    const int cols = std::min(kBlockCols<T>, tile.cols - j);
    Pack(right_rows, step.cols, tile.col + j, cols, depth, kBlockCols<T>, right);
    for (int i = 0; i < tile.rows; i += kBlockRows) {
      const Block<T> chain = SumChain<T>(left + i * depth, right, depth);
      Eigen::Map<Eigen::Array<double, kBlockRows, kBlockCols<T>, Eigen::RowMajor>, 0,
                 Eigen::OuterStride<kTileCols>>
          block(sum + i * kTileCols + j);
      block += tower.scale * chain.template cast<double>();
    }
  }
}

template <typename T>
void AdvanceTile(const Step<T>& step, const Tile& tile) {
  alignas(64) double sum[kTileRows * kTileCols] = {};
  for (const SquaredRows& tower : step.step.towers) {
    for (int64_t row = 0; row < tower.rows; row += kChainRows) {
      AddChain(step, tile, tower, row, sum);
    }
  }
  for (int i = 0; i < tile.rows; ++i) {
    const int64_t first = (tile.row + i) * step.cols + tile.col;
    for (int j = 0; j < tile.cols; ++j) {
      step.to[first + j] = static_cast<T>(step.step.decay * step.from[first + j] +
                                          step.step.weight * sum[i * kTileCols + j]);
    }
  }
}

}  // namespace

void BackendCpu::Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) {
  const int64_t rows = to.shape().rows;
  const int64_t cols = to.shape().cols;
  const int64_t tiles_down = (rows + kTileRows - 1) / kTileRows;
  const int64_t tiles_across = (cols + kTileCols - 1) / kTileCols;
  const auto advance_tile = [&](int64_t index) {
    const int64_t row = index / tiles_across * kTileRows;
    const int64_t col = index % tiles_across * kTileCols;
    const Tile tile{.row = row,
                    .col = col,
                    .rows = static_cast<int>(std::min<int64_t>(kTileRows, rows - row)),
                    .cols = static_cast<int>(std::min<int64_t>(kTileCols, cols - col))};
    WithStateType(to.shape().dtype, [&]<typename T>(std::type_identity<T>) {
      AdvanceTile<T>({step, from.elements<T>().data(), to.elements<T>().data(), rows, cols}, tile);
    });
  };
  double work = static_cast<double>(rows) * cols;
  for (const SquaredRows& tower : step.towers)
    work += static_cast<double>(tower.rows) * rows * cols;
  const int64_t tiles = tiles_down * tiles_across;
  if (pool_ != nullptr && tiles > 1 && work >= kParallelWork) {
    pool_->ParallelFor(tiles, advance_tile);
  } else {
    for (int64_t i = 0; i < tiles; ++i) advance_tile(i);
  }
}

}  // namespace fisherd::core
