// The product of few rows: it is all memory, so the state is walked row by row, as the processor
// likes to fetch it. Included once for each target.

#if defined(FISHERD_CORE_KERNELS_ADVANCE_FEW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FISHERD_CORE_KERNELS_ADVANCE_FEW_INL_H_
#undef FISHERD_CORE_KERNELS_ADVANCE_FEW_INL_H_
#else
#define FISHERD_CORE_KERNELS_ADVANCE_FEW_INL_H_
#endif

#include "core/kernels/advance_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

// Rows of a batch that are few. More are better off in blocks: their own fetching takes over.
constexpr int64_t kFewRows = 2;

// A row of the batch: row `row` of its tower.
template <typename T>
struct FewSource {
  const TowerRows<T>* tower;
  int64_t row;

  T left(int64_t col) const {
    const uint64_t within = static_cast<uint64_t>(col) % kLine<T>;
    return tower->left[(col - within) * tower->rows + row * kLine<T> + within];
  }
  const T* right(int64_t panel, int64_t width) const {
    return tower->right + panel * tower->rows + row * width;
  }
};

// One row of the state, in T, from kDepth rows of the batch; lefts[n] is what the right side of row
// n is multiplied by.
template <int kDepth, typename T>
HWY_NOINLINE void SumFewRow(const Pass<T>& pass, const FewSource<T>* sources, const T* lefts,
                            const T* from, T* to) {
  FISHERD_AVERAGE(T, pass);
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  constexpr int64_t kPanel = kRightPanelLines * kLine<T>;
  const auto a0 = hn::Set(d, lefts[0]);
  const auto a1 = hn::Set(d, lefts[kDepth > 1 ? 1 : 0]);
  for (int64_t col = pass.tile.first_col; col < pass.tile.last_col; col += kPanel) {
    const int64_t width = PanelWidth<T>({0, pass.cols, kRightPanelLines}, col);
    const T* b0 = sources[0].right(col, width);
    const T* b1 = sources[kDepth > 1 ? 1 : 0].right(col, width);
    const auto sum = [&](int64_t k) HWY_ATTR {
      auto c = hn::Mul(a0, hn::Load(d, b0 + k));
      if constexpr (kDepth > 1) c = hn::MulAdd(a1, hn::Load(d, b1 + k), c);
      return c;
    };
    if (col + kPanel <= pass.tile.last_col) {
      for (int64_t k = 0; k < kPanel; k += lanes) {
        hn::StoreU(average(hn::LoadU(d, from + col + k), sum(k)), d, to + col + k);
      }
    } else {
      HWY_ALIGN T chain[kPanel];
      const int64_t count = pass.tile.last_col - col;
      for (int64_t k = 0; k < count; k += lanes) hn::Store(sum(k), d, chain + k);
      AverageRun(pass, chain, count, from + col, to + col);
    }
  }
}

template <typename T>
void SumFewRows(const Pass<T>& pass) {
  FewSource<T> sources[kFewRows];
  int depth = 0;
  for (const auto& segment : pass.segments) {
    for (int64_t n = 0; n < segment.rows; ++n) {
      sources[depth++] = {segment.tower, segment.first + n};
    }
  }
  for (int64_t row = pass.tile.first_row; row < pass.tile.last_row; ++row) {
    T lefts[kFewRows];
    for (int n = 0; n < depth; ++n) lefts[n] = row < pass.left_cols ? sources[n].left(row) : T{1};
    const T* from = pass.from + row * pass.cols;
    T* to = pass.to + row * pass.cols;
    if (depth == 1) {
      SumFewRow<1>(pass, sources, lefts, from, to);
    } else {
      SumFewRow<2>(pass, sources, lefts, from, to);
    }
  }
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
