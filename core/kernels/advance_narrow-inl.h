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
constexpr int kNarrowCols = kBlockVectors == 3 ? 8 : 5;

#define FISHERD_COLS(COL) COL(0) COL(1) COL(2) COL(3) COL(4) COL(5) COL(6) COL(7)

// One chain of two vectors of rows (from `left` of each segment and, `next` elements further for
// every row of its tower, from there) and kCols columns from `col` on. sums[j·stride …] are those
// of column j.
template <int kCols, typename T>
HWY_NOINLINE void SumColumns(const Pass<T>& pass, const typename AdvancePlan<T>::Chain& chain,
                             int64_t row0, int64_t row1, int64_t col, T* sums, int64_t stride) {
  const Tag<T> d;
  using V = hn::Vec<Tag<T>>;
  const int64_t width = PanelWidth<T>({0, pass.cols, kRightPanelLines}, 0);
#define COL(j) V c##j##0 = hn::Zero(d), c##j##1 = c##j##0;
  FISHERD_COLS(COL)
#undef COL
  for (const auto& segment : pass.segments_of(chain)) {
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

// SumColumns<cols>, for 1 to kMost columns.
template <int kMost, typename... Arguments>
void SumSomeColumns(int64_t cols, const Arguments&... arguments) {
  if constexpr (kMost > 1) {
    if (cols < kMost) return SumSomeColumns<kMost - 1>(cols, arguments...);
  }
  SumColumns<kMost>(arguments...);
}

// All columns, in groups of one size.
template <typename T>
void SumAllColumns(const Pass<T>& pass, const typename AdvancePlan<T>::Chain& chain, int64_t row0,
                   int64_t row1, T* sums, int64_t stride) {
  const int64_t groups = (pass.cols + kNarrowCols - 1) / kNarrowCols;
  const int64_t group = (pass.cols + groups - 1) / groups;
  for (int64_t col = 0; col < pass.cols; col += group, sums += group * stride) {
    SumSomeColumns<kNarrowCols>(std::min(group, pass.cols - col), pass, chain, row0, row1, col,
                                sums, stride);
  }
}

// A state of at most a line of columns.
template <typename T>
void SumNarrow(const Pass<T>& pass) {
  const int64_t lanes = hn::Lanes(Tag<T>());
  const int64_t rows = 2 * lanes;
  const int64_t last = std::min(pass.tile.last_row, pass.left_cols);
  // As the state has them: rows of a run follow on each other without a gap, or a line apart.
  const int64_t stride = pass.narrow ? pass.cols : kLine<T>;
  constexpr int64_t kRun = (2 * kLine<T> + 1) * kLine<T>;
  HWY_ALIGN T columns[2 * kLine<T> * kLine<T>];
  HWY_ALIGN T sums[kPassChains * kRun] = {};
  for (int64_t row = pass.tile.first_row; row < last; row += rows) {
    // The second vector may have nothing left to do: then it does what the first does.
    const int64_t row1 = row + lanes < last ? row + lanes : row;
    const Block block{row, 0, std::min(rows, last - row), pass.cols};
    T* out = sums;
    for (const auto& chain : pass.chains) {
      SumAllColumns(pass, chain, row, row1, columns, rows);
      if (!chain.continues && &chain != &pass.chains.front()) out += kRun;
      for (int64_t r = 0; r < block.rows; ++r) {
        for (int64_t j = 0; j < pass.cols; ++j) {
          const T sum = columns[j * rows + r];
          out[r * stride + j] = chain.continues ? out[r * stride + j] + sum : sum;
        }
      }
    }
    if (pass.narrow) {
      AverageRun(pass, sums, block.rows * pass.cols, pass.from + row * pass.cols,
                 pass.to + row * pass.cols);
    } else {
      FinishBlock(pass, block, sums, kRun, stride);
    }
  }
  SumBiasRow(pass);
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
