// The product as it is for most shapes: blocks of rows of the state by vectors of its columns,
// their sums in registers. Included once for each target.

#if defined(FISHERD_CORE_KERNELS_ADVANCE_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FISHERD_CORE_KERNELS_ADVANCE_BLOCK_INL_H_
#undef FISHERD_CORE_KERNELS_ADVANCE_BLOCK_INL_H_
#else
#define FISHERD_CORE_KERNELS_ADVANCE_BLOCK_INL_H_
#endif

#include "core/kernels/advance_finish-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

// 8 rows of 3 vectors are 24 of 32 registers; 6 of 2 (4 where a line has 8 elements only), 12
// of 16.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
template <typename T>
constexpr int kBlockRows = sizeof(T) == 8 ? 4 : 6;
constexpr int kBlockVectors = 2;
#else
template <typename T>
constexpr int kBlockRows = 8;
constexpr int kBlockVectors = 3;
#endif

// Sizeless vectors cannot be in arrays, so a block's rows are spelt out.
#define FISHERD_ROWS(ROW) ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7)

// Where a segment's part of a block begins. `panel` is the first column of the right side's panel,
// `width` the panel's.
template <typename T>
HWY_INLINE const T* LeftOf(const typename AdvancePlan<T>::Segment& segment, int64_t row) {
  const uint64_t within = static_cast<uint64_t>(row) % kLine<T>;
  return segment.tower->left + (row - within) * segment.tower->rows + segment.first * kLine<T> +
         within;
}
template <typename T>
HWY_INLINE const T* RightOf(const typename AdvancePlan<T>::Segment& segment, int64_t panel,
                            int64_t width, int64_t col) {
  return segment.tower->right + panel * segment.tower->rows + segment.first * width + col - panel;
}

// The chains of kRows rows and kVectors vectors of columns: a multiply-add for every row of the
// batch, rows in order. kOnes: the left side is a one, for the bias row.
template <int kRows, int kVectors, bool kOnes, typename T>
HWY_NOINLINE void SumBlock(const Pass<T>& pass, const Block& block, int64_t panel, int64_t width) {
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  using V = hn::Vec<Tag<T>>;
  constexpr int64_t kStride = kRightPanelLines * kLine<T>;
  const int64_t at = block.row * pass.cols + block.col;
  const T* const from = pass.from + at;
  const bool full = block.rows == kRows && block.cols == kVectors * lanes;
  HWY_ALIGN T sums[kPassChains * kRows * kStride];
  T* out = sums;  // of the run
  for (const auto& chain : pass.chains) {
    // What the last chain and the next block will meet is fetched by and by: all at once, the
    // chain's own rows would have to wait.
    const bool meets = full && pass.ends && &chain == &pass.chains.back();
    const int64_t meets_stride = meets ? pass.cols : 0;
#define ROW(r) V c##r##0 = hn::Zero(d), c##r##1 = c##r##0, c##r##2 = c##r##0;
    FISHERD_ROWS(ROW)
#undef ROW
    for (const auto& segment : pass.segments_of(chain)) {
      const T* HWY_RESTRICT left = kOnes ? nullptr : LeftOf<T>(segment, block.row);
      const T* HWY_RESTRICT right = RightOf<T>(segment, panel, width, block.col);
      for (int64_t n = segment.rows; n > 0; --n) {
        hwy::Prefetch(from + n % kRows * meets_stride + n / kRows % (kVectors + 1) * lanes);
        const V b0 = hn::Load(d, right);
        V b1 = b0, b2 = b0;
        if constexpr (kVectors > 1) b1 = hn::Load(d, right + lanes);
        if constexpr (kVectors > 2) b2 = hn::Load(d, right + 2 * lanes);
#define ROW(r)                                                          \
  if constexpr (kRows > r) {                                            \
    if constexpr (kOnes) {                                              \
      c##r##0 = hn::Add(c##r##0, b0);                                   \
      if constexpr (kVectors > 1) c##r##1 = hn::Add(c##r##1, b1);       \
      if constexpr (kVectors > 2) c##r##2 = hn::Add(c##r##2, b2);       \
    } else {                                                            \
      const V a = hn::Set(d, left[r]);                                  \
      c##r##0 = hn::MulAdd(a, b0, c##r##0);                             \
      if constexpr (kVectors > 1) c##r##1 = hn::MulAdd(a, b1, c##r##1); \
      if constexpr (kVectors > 2) c##r##2 = hn::MulAdd(a, b2, c##r##2); \
    }                                                                   \
  }
        FISHERD_ROWS(ROW)
#undef ROW
        if constexpr (!kOnes) left += kLine<T>;
        right += width;
      }
    }
    if (chain.continues) {
#define ROW(r)                                                                \
  if constexpr (kRows > r) {                                                  \
    c##r##0 = hn::Add(hn::Load(d, out + r * kStride), c##r##0);               \
    if constexpr (kVectors > 1) {                                             \
      c##r##1 = hn::Add(hn::Load(d, out + r * kStride + lanes), c##r##1);     \
    }                                                                         \
    if constexpr (kVectors > 2) {                                             \
      c##r##2 = hn::Add(hn::Load(d, out + r * kStride + 2 * lanes), c##r##2); \
    }                                                                         \
  }
      FISHERD_ROWS(ROW)
#undef ROW
    } else if (&chain != &pass.chains.front()) {
      out += kRows * kStride;
    }
    if (meets && pass.narrow) {
      FISHERD_AVERAGE(T, pass);
      const T* old = from;
      T* to = pass.to + at;
#define ROW(r)                                                                        \
  if constexpr (kRows > r) {                                                          \
    hn::StoreU(average(hn::LoadU(d, old), c##r##0), d, to);                           \
    if constexpr (kVectors > 1) {                                                     \
      hn::StoreU(average(hn::LoadU(d, old + lanes), c##r##1), d, to + lanes);         \
    }                                                                                 \
    if constexpr (kVectors > 2) {                                                     \
      hn::StoreU(average(hn::LoadU(d, old + 2 * lanes), c##r##2), d, to + 2 * lanes); \
    }                                                                                 \
    old += pass.cols;                                                                 \
    to += pass.cols;                                                                  \
  }
      FISHERD_ROWS(ROW)
#undef ROW
      return;
    }
#define ROW(r)                                                                        \
  if constexpr (kRows > r) {                                                          \
    hn::Store(c##r##0, d, out + r * kStride);                                         \
    if constexpr (kVectors > 1) hn::Store(c##r##1, d, out + r * kStride + lanes);     \
    if constexpr (kVectors > 2) hn::Store(c##r##2, d, out + r * kStride + 2 * lanes); \
  }
    FISHERD_ROWS(ROW)
#undef ROW
  }
  FinishBlock(pass, block, sums, kRows * kStride, kStride);
}
#undef FISHERD_ROWS

// All blocks of `rows` rows of the state, along the tile's columns.
template <int kRows, bool kOnes, typename T>
void SumRows(const Pass<T>& pass, int64_t row, int64_t rows) {
  const int64_t lanes = hn::Lanes(Tag<T>());
  constexpr int64_t kPanel = kRightPanelLines * kLine<T>;
  for (int64_t panel = pass.tile.first_col; panel < pass.tile.last_col; panel += kPanel) {
    const int64_t last = std::min(panel + kPanel, pass.tile.last_col);
    const int64_t width = PanelWidth<T>({0, pass.cols, kRightPanelLines}, panel);
    for (int64_t col = panel; col < last;) {
      // Full blocks, and two and two vectors rather than three and a slow one.
      const int64_t left = (last - col + lanes - 1) / lanes;
      const int64_t vectors = left == 4 ? 2 : std::min<int64_t>(left, kBlockVectors);
      const Block block{row, col, rows, std::min(vectors * lanes, last - col)};
      if (vectors == 1) {
        SumBlock<kRows, 1, kOnes>(pass, block, panel, width);
      } else if (vectors == 2 || kBlockVectors == 2) {
        SumBlock<kRows, 2, kOnes>(pass, block, panel, width);
      } else {
        SumBlock<kRows, kBlockVectors, kOnes>(pass, block, panel, width);
      }
      col += vectors * lanes;
    }
  }
}

template <typename T>
void SumBiasRow(const Pass<T>& pass) {
  if (pass.tile.last_row > pass.left_cols) SumRows<1, true>(pass, pass.left_cols, 1);
}

template <typename T>
void SumBlocks(const Pass<T>& pass) {
  const int64_t last = std::min(pass.tile.last_row, pass.left_cols);
  for (int64_t row = pass.tile.first_row; row < last;) {
    // A block does not leave its panel: a line of 16 is blocks of 6, 6 and 4.
    constexpr int kRest = kLine<T> % kBlockRows<T>;
    const int64_t panel_left = kLine<T> - row % kLine<T>;
    const int64_t rows = std::min<int64_t>({kBlockRows<T>, panel_left, last - row});
    if (kRest != 0 && panel_left == kRest) {
      SumRows<kRest == 0 ? 1 : kRest, false>(pass, row, rows);
    } else {
      SumRows<kBlockRows<T>, false>(pass, row, rows);
    }
    row += rows;
  }
  SumBiasRow(pass);
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
