#include "core/kernels/advance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

#include "core/kernels/target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/advance.cc"
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#ifndef FISHERD_CORE_KERNELS_ADVANCE_CC_
#define FISHERD_CORE_KERNELS_ADVANCE_CC_
namespace fisherd::kernels {
namespace {

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
  const AdvancePlan<T>& plan;
  const typename AdvancePlan<T>::Chain& chain;
  const typename AdvancePlan<T>::Tile& tile;
  Chaining chaining;
  const T* from;
  T* to;
  double* sums;  // of the chains so far, [tile rows, sums_stride]
  int64_t sums_stride;
};

// A part of a tile whose sums are in registers at once.
struct Block {
  int64_t row;
  int64_t col;
  int rows;  // that there are in the state
  int cols;
  int64_t panel;        // of the right side: its first column
  int64_t panel_width;  // in elements
};

}  // namespace
}  // namespace fisherd::kernels
#endif  // FISHERD_CORE_KERNELS_ADVANCE_CC_

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// A block's sums stay in registers: 8 rows of 3 vectors in 24 of 32, or 6 of 2 in 12 of 16 (4 of
// them, where a line has 8 elements only).
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
template <typename T>
constexpr int kBlockRows = sizeof(T) == 8 ? 4 : 6;
constexpr int kBlockVectors = 2;
#else
template <typename T>
constexpr int kBlockRows = 8;
constexpr int kBlockVectors = 3;
#endif

template <typename T>
using Tag = hn::CappedTag<T, kLine<T>>;

// decay·from + weight·sum in T, as advance.h defines it for one chain.
template <typename T>
class Average {
  using D = Tag<T>;
  using V = hn::Vec<D>;

 public:
  Average(double decay, double weight)
      : decay_(static_cast<T>(decay)),
        rest_(static_cast<T>(decay - decay_)),
        weight_(static_cast<T>(weight)) {}

  HWY_INLINE V operator()(V from, V sum) const {
    const D d;
    const V weight = hn::Set(d, weight_);
    const V decay = hn::Set(d, decay_);
    if constexpr (std::is_same_v<T, double>) {  // no rest
      return hn::MulAdd(decay, from, hn::Mul(weight, sum));
    } else {
      return hn::MulAdd(decay, from, hn::MulAdd(weight, sum, hn::Mul(hn::Set(d, rest_), from)));
    }
  }

 private:
  const T decay_;
  const T rest_;
  const T weight_;
};

// Averages `count` elements, at most a vector, at `from` with `sum` into `to`.
template <typename T>
HWY_INLINE void AverageInto(const Average<T>& average, hn::Vec<Tag<T>> sum, int64_t count,
                            const T* from, T* to) {
  const Tag<T> d;
  if (count >= static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(average(hn::LoadU(d, from), sum), d, to);
    return;
  }
  HWY_ALIGN T part[kLine<T>] = {};
  for (int64_t k = 0; k < count; ++k) part[k] = from[k];
  hn::Store(average(hn::Load(d, part), sum), d, part);
  for (int64_t k = 0; k < count; ++k) to[k] = part[k];
}

template <typename T>
HWY_INLINE hn::Vec<Tag<double>> LoadWide(const T* from) {
  const Tag<double> wide;
  if constexpr (std::is_same_v<T, double>) {
    return hn::LoadU(wide, from);
  } else {
    return hn::PromoteTo(wide, hn::LoadU(hn::Rebind<T, Tag<double>>(), from));
  }
}

template <typename T>
HWY_INLINE void StoreNarrow(hn::Vec<Tag<double>> value, T* to) {
  const Tag<double> wide;
  if constexpr (std::is_same_v<T, double>) {
    hn::StoreU(value, wide, to);
  } else if constexpr (HWY_TARGET == HWY_SCALAR) {
    *to = static_cast<T>(hn::GetLane(value));  // where DemoteTo makes overflow a finite number
  } else {
    const hn::Rebind<T, Tag<double>> narrow;
    hn::StoreU(hn::DemoteTo(narrow, value), narrow, to);
  }
}

// One chain of a block, in 64 bits: onto the sums (kAdds), into the state (kEnds), or both. `chain`
// has `stride` elements a row.
template <bool kAdds, bool kEnds, typename T>
HWY_NOINLINE void Fold(const ChainJob<T>& job, const Block& block, const T* chain, int64_t stride) {
  const Tag<double> wide;
  const int64_t lanes = hn::Lanes(wide);
  const auto weight = hn::Set(wide, job.chain.weight);
  const auto decay = hn::Set(wide, job.plan.step().decay);
  for (int r = 0; r < block.rows; ++r, chain += stride) {
    double* HWY_RESTRICT sums = job.sums + (block.row + r - job.tile.first_row) * job.sums_stride +
                                block.col - job.tile.first_col;
    const int64_t at = (block.row + r) * job.plan.cols() + block.col;
    const T* from = job.from + at;
    T* to = job.to + at;
    const auto sum = [&](int64_t k) HWY_ATTR {
      const auto x = LoadWide(chain + k);
      if constexpr (kAdds) return hn::MulAdd(weight, x, hn::Load(wide, sums + k));
      return hn::Mul(weight, x);
    };
    if constexpr (!kEnds) {
      for (int64_t k = 0; k < block.cols; k += lanes) hn::Store(sum(k), wide, sums + k);
      continue;
    }
    int64_t k = 0;
    for (; k + lanes <= block.cols; k += lanes) {
      StoreNarrow(hn::MulAdd(decay, LoadWide(from + k), sum(k)), to + k);
    }
    if (const int64_t rest = block.cols - k; rest > 0) {
      HWY_ALIGN T part[kLine<double>] = {};
      for (int64_t j = 0; j < rest; ++j) part[j] = from[k + j];
      StoreNarrow(hn::MulAdd(decay, LoadWide(part), sum(k)), part);
      for (int64_t j = 0; j < rest; ++j) to[k + j] = part[j];
    }
  }
}

template <typename T>
void FoldBlock(const ChainJob<T>& job, const Block& block, const T* chain, int64_t stride) {
  switch (job.chaining) {
    case Chaining::kFirst:
      return Fold<false, false>(job, block, chain, stride);
    case Chaining::kMiddle:
      return Fold<true, false>(job, block, chain, stride);
    case Chaining::kLast:
      return Fold<true, true>(job, block, chain, stride);
    default:
      return Fold<false, true>(job, block, chain, stride);
  }
}

// Sizeless vectors cannot be in arrays, so the block's rows are spelt out.
#define FISHERD_ROWS(ROW) ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5) ROW(6) ROW(7)

// The sums of one chain for kRows rows and kVectors vectors of columns: one multiply-add a row of
// the batch, rows in order. kOnes: the left side is a one, for the bias row.
template <int kRows, int kVectors, bool kOnes, typename T>
HWY_NOINLINE void SumBlock(const ChainJob<T>& job, const Block& block) {
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  using V = hn::Vec<Tag<T>>;
  const int64_t left_panel = block.row / kLine<T> * kLine<T>;
  constexpr int64_t kPanel = kRightPanelLines * kLine<T>;
  const int64_t cols = job.plan.cols();
  const int64_t at = block.row * cols + block.col;
  if (job.chaining != Chaining::kFirst && job.chaining != Chaining::kMiddle) {
    // What the chain will meet in the end.
    const T* from = job.from + at;
#define ROW(r)                                                   \
  if constexpr (kRows > r) {                                     \
    hwy::Prefetch(from);                                         \
    if constexpr (kVectors > 1) hwy::Prefetch(from + lanes);     \
    if constexpr (kVectors > 2) hwy::Prefetch(from + 2 * lanes); \
    from += r + 1 < block.rows ? cols : 0;                       \
  }
    FISHERD_ROWS(ROW)
#undef ROW
  }
#define ROW(r) V c##r##0 = hn::Zero(d), c##r##1 = c##r##0, c##r##2 = c##r##0;
  FISHERD_ROWS(ROW)
#undef ROW
  for (const auto& segment : job.plan.segments(job.chain)) {
    const TowerRows<T>& tower = *segment.tower;
    const T* HWY_RESTRICT left =
        tower.left + left_panel * tower.rows + segment.first * kLine<T> + (block.row - left_panel);
    const T* HWY_RESTRICT right = tower.right + block.panel * tower.rows +
                                  segment.first * block.panel_width + (block.col - block.panel);
    for (int64_t n = 0; n < segment.rows; ++n, left += kLine<T>, right += block.panel_width) {
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
    }
  }
  if (job.chaining == Chaining::kOnly) {
    const Average<T> average(job.plan.step().decay, job.chain.weight);
    const T* from = job.from + at;
    T* to = job.to + at;
#define ROW(r)                                                                                   \
  if constexpr (kRows > r) {                                                                     \
    if (r < block.rows) {                                                                        \
      AverageInto(average, c##r##0, block.cols, from, to);                                       \
      if constexpr (kVectors > 1) {                                                              \
        AverageInto(average, c##r##1, block.cols - lanes, from + lanes, to + lanes);             \
      }                                                                                          \
      if constexpr (kVectors > 2) {                                                              \
        AverageInto(average, c##r##2, block.cols - 2 * lanes, from + 2 * lanes, to + 2 * lanes); \
      }                                                                                          \
      from += cols;                                                                              \
      to += cols;                                                                                \
    }                                                                                            \
  }
    FISHERD_ROWS(ROW)
#undef ROW
    return;
  }
  HWY_ALIGN T chain[kRows * kPanel];
#define ROW(r)                                                                         \
  if constexpr (kRows > r) {                                                           \
    hn::Store(c##r##0, d, chain + r * kPanel);                                         \
    if constexpr (kVectors > 1) hn::Store(c##r##1, d, chain + r * kPanel + lanes);     \
    if constexpr (kVectors > 2) hn::Store(c##r##2, d, chain + r * kPanel + 2 * lanes); \
  }
  FISHERD_ROWS(ROW)
#undef ROW
  FoldBlock(job, block, chain, kPanel);
}
#undef FISHERD_ROWS

// All blocks of `rows` rows of the state, along the tile's columns.
template <int kRows, bool kOnes, typename T>
void SumRows(const ChainJob<T>& job, int64_t row, int rows) {
  const int64_t lanes = hn::Lanes(Tag<T>());
  constexpr int64_t kPanel = kRightPanelLines * kLine<T>;
  for (int64_t panel = job.tile.first_col; panel < job.tile.last_col; panel += kPanel) {
    const int64_t last = std::min(panel + kPanel, job.tile.last_col);
    const int64_t width = PanelWidth<T>({0, job.plan.cols(), kRightPanelLines}, panel);
    for (int64_t col = panel; col < last;) {
      // Full blocks, and two and two vectors rather than three and a slow one.
      const int64_t left = (last - col + lanes - 1) / lanes;
      const int64_t vectors = left == 4 ? 2 : std::min<int64_t>(left, kBlockVectors);
      const int cols = static_cast<int>(std::min(vectors * lanes, last - col));
      const Block block{row, col, rows, cols, panel, width};
      if (vectors == 1) {
        SumBlock<kRows, 1, kOnes>(job, block);
      } else if (vectors == 2 || kBlockVectors == 2) {
        SumBlock<kRows, 2, kOnes>(job, block);
      } else {
        SumBlock<kRows, kBlockVectors, kOnes>(job, block);
      }
      col += vectors * lanes;
    }
  }
}

template <typename T>
void SumChain(const ChainJob<T>& job) {
  const int64_t left_cols = job.plan.step().left_cols;
  const int64_t last = std::min(job.tile.last_row, left_cols);
  for (int64_t row = job.tile.first_row; row < last;) {
    // A block does not leave its panel: a line of 16 is blocks of 6, 6 and 4.
    constexpr int kRest = kLine<T> % kBlockRows<T>;
    const int64_t panel_left = kLine<T> - row % kLine<T>;
    const int64_t rows = std::min<int64_t>({kBlockRows<T>, panel_left, last - row});
    if (kRest != 0 && panel_left == kRest) {
      SumRows<kRest == 0 ? 1 : kRest, false>(job, row, static_cast<int>(rows));
    } else {
      SumRows<kBlockRows<T>, false>(job, row, static_cast<int>(rows));
    }
    row += rows;
  }
  if (job.tile.last_row > left_cols) SumRows<1, true>(job, left_cols, 1);
}

void SumChainFloat(const ChainJob<float>& job) { SumChain(job); }
void SumChainDouble(const ChainJob<double>& job) { SumChain(job); }

int64_t ThisTarget() { return HWY_TARGET; }

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {

HWY_EXPORT(SumChainFloat);
HWY_EXPORT(SumChainDouble);
HWY_EXPORT(ThisTarget);
std::string AdvanceTarget() { return TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

namespace {

// Chain sums of one tile; a thread's own, kept from step to step.
double* SumsFor(int64_t count) {
  thread_local hwy::AlignedFreeUniquePtr<double[]> sums;
  thread_local int64_t size = 0;
  if (size < count) {
    sums = hwy::AllocateAligned<double>(count);
    size = count;
  }
  return sums.get();
}

template <typename T>
Chaining ChainingOf(const AdvancePlan<T>& plan, size_t index) {
  if (plan.narrow()) return Chaining::kOnly;
  if (plan.chains().size() == 1) return Chaining::kSingle;
  if (index == 0) return Chaining::kFirst;
  return index + 1 < plan.chains().size() ? Chaining::kMiddle : Chaining::kLast;
}

// Elements are 0 or above, unless they are not finite: their bits are in the order of their values.
template <typename T>
T LargestOf(const typename AdvancePlan<T>::Tile& tile, int64_t cols, const T* elements) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  Bits largest = 0;
  for (int64_t row = tile.first_row; row < tile.last_row; ++row) {
    for (int64_t col = tile.first_col; col < tile.last_col; ++col) {
      largest = std::max(largest, std::bit_cast<Bits>(elements[row * cols + col]));
    }
  }
  return std::bit_cast<T>(largest);
}

}  // namespace

template <typename T>
AdvancePlan<T>::AdvancePlan(const Step& step) : step_(step) {
  for (const TowerRows<T>& tower : step.towers) {
    const double weight = step.weight * tower.scale;
    for (int64_t row = 0; row < tower.rows;) {
      // A chain is full, or ends where the scale changes.
      if (chains_.empty() || chain_rows_ == kChainRows || chains_.back().weight != weight) {
        chains_.push_back({.first_segment = static_cast<int>(segments_.size()), .weight = weight});
        chain_rows_ = 0;
      }
      const int64_t rows = std::min(kChainRows - chain_rows_, tower.rows - row);
      segments_.push_back({.tower = &tower, .first = row, .rows = rows});
      ++chains_.back().segments;
      chain_rows_ += rows;
      row += rows;
    }
    depth_ += tower.rows;
  }
  constexpr double kLeast = std::is_same_v<T, float> ? 1e-30 : 0;
  constexpr double kMost = std::is_same_v<T, float> ? 1e30 : std::numeric_limits<double>::max();
  narrow_ = chains_.size() == 1 && chains_[0].weight >= kLeast && chains_[0].weight <= kMost &&
            (step.decay == 0 || step.decay >= kLeast);
}

template <typename T>
T AdvancePlan<T>::Advance(const Tile& tile, bool find_largest, const T* from, T* to) const {
  double* sums = nullptr;
  const int64_t stride = (tile.last_col - tile.first_col + kTileCols - 1) / kTileCols * kTileCols;
  if (!narrow_) sums = SumsFor((tile.last_row - tile.first_row) * stride);
  for (size_t k = 0; k < chains_.size(); ++k) {
    const ChainJob<T> job{.plan = *this,
                          .chain = chains_[k],
                          .tile = tile,
                          .chaining = ChainingOf(*this, k),
                          .from = from,
                          .to = to,
                          .sums = sums,
                          .sums_stride = stride};
    if constexpr (std::is_same_v<T, float>) {
      HWY_DYNAMIC_DISPATCH(SumChainFloat)(job);
    } else {
      HWY_DYNAMIC_DISPATCH(SumChainDouble)(job);
    }
  }
  return find_largest ? LargestOf(tile, cols(), to) : T{0};
}

template class AdvancePlan<float>;
template class AdvancePlan<double>;

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
