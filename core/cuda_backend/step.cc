#include "core/cuda_backend/step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/cuda/accumulate.h"
#include "core/element_type.h"

namespace fisherd::core {
namespace {

using cuda::Card;

// Of ready-made towers that are added at once.
constexpr int64_t kTermBytes = int64_t{64} << 20;

constexpr double kNotComputed = std::numeric_limits<double>::quiet_NaN();

// Towers that follow on each other with the same scale: their rows are one product.
struct Run {
  std::span<const SquaredRows> towers;
  int64_t rows = 0;
  bool splittable = true;
};

std::vector<Run> RunsOf(std::span<const SquaredRows> towers) {
  std::vector<Run> runs;
  for (size_t first = 0; first < towers.size();) {
    Run run;
    size_t last = first;
    for (; last < towers.size() && towers[last].scale == towers[first].scale; ++last) {
      run.rows += towers[last].rows;
      run.splittable &= towers[last].largest < cuda::kLargestSplit;
    }
    run.towers = towers.subspan(first, last - first);
    runs.push_back(run);
    first = last;
  }
  return runs;
}

// One side of one tower, to rows first_row … of `all`, which is packed like it.
template <typename T>
cudaError_t CopyRows(const T* from, int64_t rows, const kernels::PackedShape& all,
                     int64_t first_row, T* to, cudaStream_t stream) {
  const kernels::PackedShape own{rows, all.cols, all.panel_lines};
  if (rows == all.rows) {
    return cudaMemcpyAsync(to, from, static_cast<size_t>(kernels::PackedSize<T>(own)) * sizeof(T),
                           cudaMemcpyHostToDevice, stream);
  }
  const int64_t panel = all.panel_lines * kernels::kLine<T>;
  for (int64_t col = 0; col < all.cols; col += panel) {
    const int64_t width = kernels::PanelWidth<T>(all, col);
    T* const place = to + kernels::PanelOffset<T>(all, col) + first_row * width;
    const T* const source = from + kernels::PanelOffset<T>(own, col);
    const size_t bytes = static_cast<size_t>(rows * width) * sizeof(T);
    const int64_t whole = all.cols / panel;  // panels of full width
    const size_t pitch = static_cast<size_t>(all.rows * panel) * sizeof(T);
    if (col == 0 && whole > 1 && pitch <= std::numeric_limits<int32_t>::max()) {
      if (auto e = cudaMemcpy2DAsync(place, pitch, source, bytes, bytes, static_cast<size_t>(whole),
                                     cudaMemcpyHostToDevice, stream);
          e != cudaSuccess)
        return e;
      col += (whole - 1) * panel;
      continue;
    }
    if (auto e = cudaMemcpyAsync(place, source, bytes, cudaMemcpyHostToDevice, stream);
        e != cudaSuccess)
      return e;
  }
  return cudaSuccess;
}

// What a step does on a card, in one lane.
template <typename T>
class StepOnCard {
 public:
  StepOnCard(Card& card, const AdvanceStep& step, cuda::Precision precision,
             const MatrixShape& shape)
      : card_(card), step_(step), precision_(precision), shape_(shape), lane_(card.ForStep()) {}

  double Advance(const T* from, T* to);

 private:
  cuda::AdvanceRows<T> RowsOf(const Run& run) const;
  int64_t LeftBytes(const cuda::AdvanceRows<T>& rows) const {
    return kernels::PackedSize<T>(LeftShape(rows)) * int64_t{sizeof(T)};
  }
  int64_t RightBytes(const cuda::AdvanceRows<T>& rows) const {
    return kernels::PackedSize<T>(RightShape(rows)) * int64_t{sizeof(T)};
  }
  static kernels::PackedShape LeftShape(const cuda::AdvanceRows<T>& rows) {
    return {rows.rows, rows.left_cols, kernels::kLeftPanelLines};
  }
  static kernels::PackedShape RightShape(const cuda::AdvanceRows<T>& rows) {
    return {rows.rows, rows.right_cols, kernels::kRightPanelLines};
  }
  int64_t ScratchBytes(const cuda::AdvanceRows<T>& rows) const {
    return LeftBytes(rows) + RightBytes(rows) + cuda::AdvanceScratchBytes<T>(rows);
  }
  // Elements of the state that ready-made towers are added to at once, and the towers' bytes.
  int64_t TermPiece(size_t towers) const {
    return std::min<int64_t>(shape_.size(), kTermBytes / static_cast<int64_t>(towers * sizeof(T)));
  }
  int64_t TermBytes() const {
    const size_t towers = std::min<size_t>(step_.reduced.size(), cuda::kMostTerms);
    return towers == 0 ? 0 : TermPiece(towers) * static_cast<int64_t>(towers * sizeof(T));
  }
  bool AddAll(const std::vector<Run>& runs, const T* from, T* to);
  bool AddRows(const Run& run, double decay, const T* from, T* to);
  bool AddReduced(std::span<const ReducedTower> towers, double decay, const T* from, T* to);
  uint64_t* largest() const {
    return step_.find_largest ? reinterpret_cast<uint64_t*>(lane_->words) : nullptr;
  }

  Card& card_;
  const AdvanceStep& step_;
  const cuda::Precision precision_;
  const MatrixShape shape_;
  Card::Hold lane_;
};

template <typename T>
double StepOnCard<T>::Advance(const T* from, T* to) {
  const std::vector<Run> runs = RunsOf(step_.towers);
  int64_t scratch = std::max<int64_t>(TermBytes(), 1);
  for (const Run& run : runs) scratch = std::max(scratch, ScratchBytes(RowsOf(run)));
  if (lane_.Scratch(scratch) == nullptr) return kNotComputed;  // and nothing has been touched
  if (!AddAll(runs, from, to)) {
    card_.Lose("a step was cut short, and what it wrote is of no use");
    return kNotComputed;
  }
  if (!step_.find_largest) return 0;
  const uint64_t bits = *reinterpret_cast<const uint64_t*>(lane_->answer);
  double most;
  if constexpr (sizeof(T) == 4) {
    most = std::bit_cast<float>(static_cast<uint32_t>(bits >> 32));
  } else {
    most = std::bit_cast<double>(bits);
  }
  // Not a number is for steps that were not computed.
  return std::isnan(most) ? std::numeric_limits<double>::infinity() : most;
}

// The first that adds brings the average; the others add to what it has made.
template <typename T>
bool StepOnCard<T>::AddAll(const std::vector<Run>& runs, const T* from, T* to) {
  double decay = step_.decay;
  if (!card_.Good(cudaMemsetAsync(lane_->words, 0, sizeof(uint64_t), lane_->stream))) return false;
  for (const Run& run : runs) {
    if (!AddRows(run, std::exchange(decay, 1), std::exchange(from, to), to)) return false;
  }
  for (auto rest = step_.reduced; !rest.empty();) {
    const auto some = rest.first(std::min<size_t>(rest.size(), cuda::kMostTerms));
    if (!AddReduced(some, std::exchange(decay, 1), std::exchange(from, to), to)) return false;
    rest = rest.subspan(some.size());
  }
  return card_.Good(cudaMemcpyAsync(lane_->answer, lane_->words, sizeof(uint64_t),
                                    cudaMemcpyDeviceToHost, lane_->stream)) &&
         card_.Good(cudaStreamSynchronize(lane_->stream));
}

template <typename T>
cuda::AdvanceRows<T> StepOnCard<T>::RowsOf(const Run& run) const {
  return {.rows = run.rows,
          .left_cols = shape_.rows - step_.ones_column,
          .right_cols = shape_.cols,
          .ones_column = step_.ones_column,
          .weight = step_.weight * run.towers[0].scale,
          .precision = precision_,
          .splittable = run.splittable};
}

template <typename T>
bool StepOnCard<T>::AddRows(const Run& run, double decay, const T* from, T* to) {
  cuda::AdvanceRows<T> rows = RowsOf(run);
  rows.decay = decay;
  const int64_t left_bytes = LeftBytes(rows);
  const int64_t right_bytes = RightBytes(rows);
  auto* const scratch = static_cast<std::byte*>(lane_->scratch);
  T* const left = reinterpret_cast<T*>(scratch);
  T* const right = reinterpret_cast<T*>(scratch + left_bytes);
  lane_.Begin();
  int64_t first_row = 0;
  for (const SquaredRows& tower : run.towers) {
    lane_.Note(CopyRows(static_cast<const T*>(tower.left), tower.rows, LeftShape(rows), first_row,
                        left, lane_->stream));
    lane_.Note(CopyRows(static_cast<const T*>(tower.right), tower.rows, RightShape(rows), first_row,
                        right, lane_->stream));
    first_row += tower.rows;
  }
  lane_.Copied();
  card_.CountBytes(left_bytes + right_bytes, 0);
  rows.left = left;
  rows.right = right;
  lane_.Note(cuda::Advance<T>(rows, scratch + left_bytes + right_bytes, from, to, largest(),
                              lane_->stream));
  return lane_.Finish();
}

// Piece by piece of the state: every element is added up by itself.
template <typename T>
bool StepOnCard<T>::AddReduced(std::span<const ReducedTower> towers, double decay, const T* from,
                               T* to) {
  const int64_t piece = TermPiece(towers.size());
  auto* const scratch = static_cast<T*>(lane_->scratch);
  for (int64_t first = 0; first < shape_.size(); first += piece) {
    const int64_t count = std::min(shape_.size() - first, piece);
    cuda::Terms<T> terms{.count = static_cast<int>(towers.size())};
    lane_.Begin();
    for (size_t k = 0; k < towers.size(); ++k) {
      T* const term = scratch + static_cast<int64_t>(k) * piece;
      lane_.Note(cudaMemcpyAsync(term, static_cast<const T*>(towers[k].elements) + first,
                                 static_cast<size_t>(count) * sizeof(T), cudaMemcpyHostToDevice,
                                 lane_->stream));
      terms.elements[k] = term;
      terms.weight[k] = step_.weight * towers[k].scale;
    }
    lane_.Copied();
    card_.CountBytes(count * static_cast<int64_t>(towers.size() * sizeof(T)), 0);
    lane_.Note(cuda::Accumulate<T>(decay, terms, count, from + first, to + first, largest(),
                                   lane_->stream));
    if (!lane_.Finish()) return false;
  }
  return true;
}

}  // namespace

double AdvanceOnCard(Card& card, const AdvanceStep& step, cuda::Precision precision,
                     const MatrixShape& shape, const void* from, void* to) {
  return WithStateType(shape.dtype, [&]<typename T>(std::type_identity<T>) {
    return StepOnCard<T>(card, step, precision, shape)
        .Advance(static_cast<const T*>(from), static_cast<T*>(to));
  });
}

}  // namespace fisherd::core
