// The product for a state of few columns, which would fill a part of a vector only: here vectors
// run along its rows instead, and the right side is broadcast. Included once for each target.

#if defined(FISHERD_CORE_KERNELS_ADVANCE_NARROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FISHERD_CORE_KERNELS_ADVANCE_NARROW_INL_H_
#undef FISHERD_CORE_KERNELS_ADVANCE_NARROW_INL_H_
#else
#define FISHERD_CORE_KERNELS_ADVANCE_NARROW_INL_H_
#endif

#include "core/kernels/advance_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

// Columns of the state whose sums are in registers at once, with two vectors of rows.
constexpr int64_t kNarrowCols = kBlockVectors == 3 ? 8 : 5;

#define FISHERD_COLS(COL) COL(0) COL(1) COL(2) COL(3) COL(4) COL(5) COL(6) COL(7)

// One chain of two vectors of rows (from `left` of each segment and, `next` elements further for
// every row of its tower, from there) and kCols columns from `col` on. sums[j·stride …] are those
// of column j.
template <int kCols, typename T>
HWY_NOINLINE void SumColumns(const ChainJob<T>& job, int64_t row0, int64_t row1, int64_t col,
                             T* sums, int64_t stride) {
  const Tag<T> d;
  using V = hn::Vec<Tag<T>>;
  const int64_t width = PanelWidth<T>({0, job.cols, kRightPanelLines}, 0);
#define COL(j) V c##j##0 = hn::Zero(d), c##j##1 = c##j##0;
  FISHERD_COLS(COL)
#undef COL
  for (const auto& segment : job.segments) {
    const T* HWY_RESTRICT left0 = LeftOf<T>(segment, row0);
    const T* HWY_RESTRICT left1 = LeftOf<T>(segment, row1);
    const T* HWY_RESTRICT right = RightOf<T>(segment, 0, width, col);
    for (int64_t n = segment.rows; n > 0; --n) {
      const V a0 = hn::Load(d, left0);
      const V a1 = hn::Load(d, left1);
#define COL(j)                            \
  if constexpr (kCols > j) {              \
    const V b = hn::Set(d, right[j]);     \
    c##j##0 = hn::MulAdd(a0, b, c##j##0); \
    c##j##1 = hn::MulAdd(a1, b, c##j##1); \
  }
      FISHERD_COLS(COL)
#undef COL
      left0 += kLine<T>;
      left1 += kLine<T>;
      right += width;
    }
  }
  const int64_t lanes = hn::Lanes(d);
#define COL(j)                                        \
  if constexpr (kCols > j) {                          \
    hn::Store(c##j##0, d, sums + j * stride);         \
    hn::Store(c##j##1, d, sums + j * stride + lanes); \
  }
  FISHERD_COLS(COL)
#undef COL
}
#undef FISHERD_COLS

template <typename T>
void SumColumnGroup(const ChainJob<T>& job, int64_t row0, int64_t row1, int64_t col, int64_t cols,
                    T* sums, int64_t stride) {
  switch (cols) {
    case 1:
      return SumColumns<1>(job, row0, row1, col, sums, stride);
    case 2:
      return SumColumns<2>(job, row0, row1, col, sums, stride);
    case 3:
      return SumColumns<3>(job, row0, row1, col, sums, stride);
    case 4:
      return SumColumns<4>(job, row0, row1, col, sums, stride);
    case 5:
      return SumColumns<5>(job, row0, row1, col, sums, stride);
    case 6:
      return SumColumns<6>(job, row0, row1, col, sums, stride);
    case 7:
      return SumColumns<7>(job, row0, row1, col, sums, stride);
    default:
      return SumColumns<8>(job, row0, row1, col, sums, stride);
  }
}

// A state of at most a line of columns.
template <typename T>
void SumNarrow(const ChainJob<T>& job) {
  const int64_t lanes = hn::Lanes(Tag<T>());
  const int64_t last = std::min(job.tile.last_row, job.left_cols);
  const int64_t groups = (job.cols + kNarrowCols - 1) / kNarrowCols;
  const int64_t group = (job.cols + groups - 1) / groups;
  for (int64_t row = job.tile.first_row; row < last; row += 2 * lanes) {
    // The second vector may have nothing left to do: it does what the first does.
    const int64_t row1 = row + lanes < last ? row + lanes : row;
    HWY_ALIGN T columns[kLine<T> * 2 * kLine<T>];  // [columns, rows]
    for (int64_t col = 0; col < job.cols; col += group) {
      SumColumnGroup(job, row, row1, col, std::min(group, job.cols - col),
                     columns + col * 2 * lanes, 2 * lanes);
    }
    const Block block{row, 0, std::min(2 * lanes, last - row), job.cols};
    HWY_ALIGN T chain[(2 * kLine<T> + 1) * kLine<T>];  // [rows, columns], as the state has them
    const int64_t stride = job.chaining == Chaining::kOnly ? job.cols : kLine<T>;
    for (int64_t r = 0; r < block.rows; ++r) {
      for (int64_t j = 0; j < job.cols; ++j) chain[r * stride + j] = columns[j * 2 * lanes + r];
    }
    if (job.chaining == Chaining::kOnly) {
      AverageRun(job, chain, block.rows * job.cols, job.from + row * job.cols,
                 job.to + row * job.cols);
    } else {
      FinishBlock(job, block, chain, stride);
    }
  }
  SumBiasRow(job);
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
