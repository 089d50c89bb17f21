#include "core/kernels/advance.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "core/kernels/advance_job.h"
#include "core/kernels/target.h"
#include "hwy/aligned_allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/advance.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
// These too, in whatever order.
#include "core/kernels/advance_block-inl.h"
#include "core/kernels/advance_few-inl.h"
#include "core/kernels/advance_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

// The same bits whichever way.
template <typename T>
void SumPass(const Pass<T>& pass) {
  if (pass.narrow && pass.chains.size() == 1 && pass.chains[0].rows <= kFewRows) {
    SumFewRows(pass);
  } else if (pass.cols < kLine<T>) {
    SumNarrow(pass);
  } else {
    SumBlocks(pass);
  }
}

void SumPassFloat(const Pass<float>& pass) { SumPass(pass); }
void SumPassDouble(const Pass<double>& pass) { SumPass(pass); }

int64_t ThisTarget() { return HWY_TARGET; }

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {

HWY_EXPORT(SumPassFloat);
HWY_EXPORT(SumPassDouble);
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

// A tower costs each block of the state as much as some rows do. Fewer than these, on the average,
// are put together first.
constexpr int64_t kFewTowerRows = 16;

// Copies a side of the towers, panel by panel, into one.
template <typename T>
T* GatherSide(std::span<const TowerRows<T>> towers, const T* TowerRows<T>::*side,
              const PackedShape& shape, T* to) {
  const int64_t panel = shape.panel_lines * kLine<T>;
  for (int64_t col = 0; col < shape.cols; col += panel) {
    const int64_t width = PanelWidth<T>(shape, col);
    for (const TowerRows<T>& tower : towers) {
      to = std::copy_n(tower.*side + col * tower.rows, tower.rows * width, to);
    }
  }
  return to;
}

}  // namespace

template <typename T>
AdvancePlan<T>::AdvancePlan(const Step& step)
    : step_(step), gathered_elements_(nullptr, [](T* elements) { std::free(elements); }) {
  for (const TowerRows<T>& tower : step.towers) depth_ += tower.rows;
  CutIntoChains(Gather() ? std::span<const TowerRows<T>>(&gathered_, 1) : step.towers);
  constexpr double kLeast = std::is_same_v<T, float> ? 1e-30 : 0;
  constexpr double kMost = std::is_same_v<T, float> ? 1e30 : std::numeric_limits<double>::max();
  const auto runs = std::ranges::count(chains_, false, &Chain::continues);
  narrow_ = runs == 1 && chains_[0].weight >= kLeast && chains_[0].weight <= kMost &&
            (step.decay == 0 || step.decay >= kLeast);
}

// Makes one tower of many small ones; false if they are not, or if there is no memory.
template <typename T>
bool AdvancePlan<T>::Gather() {
  const std::span<const TowerRows<T>> towers = step_.towers;
  if (towers.size() < 2 || depth_ >= kFewTowerRows * static_cast<int64_t>(towers.size()) ||
      depth_ > kChainRows) {
    return false;
  }
  for (const TowerRows<T>& tower : towers) {
    if (tower.scale != towers[0].scale) return false;
  }
  const PackedShape left{depth_, step_.left_cols, kLeftPanelLines};
  const PackedShape right{depth_, step_.right_cols, kRightPanelLines};
  const int64_t size = PackedSize<T>(left) + PackedSize<T>(right);
  gathered_elements_.reset(static_cast<T*>(std::aligned_alloc(64, size * sizeof(T))));
  if (gathered_elements_ == nullptr) return false;
  T* const rights = GatherSide(towers, &TowerRows<T>::left, left, gathered_elements_.get());
  GatherSide(towers, &TowerRows<T>::right, right, rights);
  gathered_ = {gathered_elements_.get(), rights, depth_, towers[0].scale};
  return true;
}

template <typename T>
void AdvancePlan<T>::CutIntoChains(std::span<const TowerRows<T>> towers) {
  for (const TowerRows<T>& tower : towers) {
    const double weight = step_.weight * tower.scale;
    for (int64_t row = 0; row < tower.rows;) {
      // A chain is full, or ends where the scale changes.
      if (chains_.empty() || chains_.back().rows == kChainRows || chains_.back().weight != weight) {
        const bool continues = chains_.size() % kPassChains != 0 && chains_.back().weight == weight;
        chains_.push_back({.first_segment = static_cast<int>(segments_.size()),
                           .weight = weight,
                           .continues = continues});
      }
      const int64_t rows = std::min(kChainRows - chains_.back().rows, tower.rows - row);
      segments_.push_back({.tower = &tower, .first = row, .rows = rows});
      ++chains_.back().segments;
      chains_.back().rows += rows;
      row += rows;
    }
  }
}

template <typename T>
T AdvancePlan<T>::Advance(const Tile& tile, bool find_largest, const T* from, T* to) const {
  double* sums = nullptr;
  const int64_t stride = (tile.last_col - tile.first_col + kTileCols - 1) / kTileCols * kTileCols;
  if (chains_.size() > kPassChains) sums = SumsFor((tile.last_row - tile.first_row) * stride);
  for (size_t k = 0; k < chains_.size(); k += kPassChains) {
    const size_t count = std::min<size_t>(kPassChains, chains_.size() - k);
    Pass<T> pass{.chains = std::span(chains_).subspan(k, count),
                 .segments = segments_,
                 .narrow = narrow_,
                 .begins = k == 0,
                 .ends = k + count == chains_.size(),
                 .decay = step_.decay,
                 .left_cols = step_.left_cols,
                 .cols = step_.right_cols,
                 .tile = tile,
                 .from = from,
                 .to = to,
                 .sums = sums,
                 .sums_stride = stride};
    for (const Chain& chain : pass.chains) {
      if (!chain.continues) pass.weights[pass.runs++] = chain.weight;
    }
    if constexpr (std::is_same_v<T, float>) {
      HWY_DYNAMIC_DISPATCH(SumPassFloat)(pass);
    } else {
      HWY_DYNAMIC_DISPATCH(SumPassDouble)(pass);
    }
  }
  return find_largest ? LargestOf(tile, cols(), to) : T{0};
}

template class AdvancePlan<float>;
template class AdvancePlan<double>;

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
