#include "core/kinds/fully_connected_diagonal/batch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/element_type.h"
#include "core/error.h"
#include "core/kernels/ingest.h"

namespace fisherd::core {
namespace {

// Squares of T in packed rows: those of one role.
template <typename T>
struct SquaredTensor {
  AlignedArray<T> elements;
  kernels::PackedShape shape;
  double max = 0;

  T& at(int64_t row, int64_t col) const {
    return elements[kernels::PackedIndex<T>(shape, row, col)];
  }
};

// Columns that only fill up the last line are zeros.
template <typename T>
void FillPadding(const SquaredTensor<T>& tensor) {
  const int64_t panel = tensor.shape.panel_lines * kernels::kLine<T>;
  const int64_t first = (tensor.shape.cols - 1) / panel * panel;
  const int64_t width = kernels::PanelWidth<T>(tensor.shape, first);
  const int64_t there = tensor.shape.cols - first;
  if (there == width) return;
  T* row = tensor.elements.get() + kernels::PanelOffset<T>(tensor.shape, first);
  for (int64_t n = 0; n < tensor.shape.rows; ++n, row += width) {
    std::fill(row + there, row + width, T{0});
  }
}

template <typename T>
class TypedBatch final : public FullyConnectedDiagonalBatch {
 public:
  TypedBatch(const BatchHeader& header, AlignedArray<T> left, AlignedArray<T> right,
             AlignedArray<double> weights);

  absl::Status Add(int tensor, int64_t first_element, std::span<const std::byte> elements) override;
  absl::Status Finish() override;

 private:
  absl::Status AddSquares(const TensorSpec& spec, int64_t first, std::span<const std::byte> bytes,
                          SquaredTensor<T>& to);
  absl::Status AddWeights(const TensorSpec& spec, int64_t first, std::span<const std::byte> bytes);
  absl::Status ApplyWeights();
  absl::Status CheckWeighted() const;

  const std::vector<TensorSpec> tensors_;
  const double gradient_scale_;
  SquaredTensor<T> left_;
  SquaredTensor<T> right_;
  const AlignedArray<double> weights_;  // null if the batch has none
};

kernels::PackedShape LeftShape(const BatchHeader& header) {
  return {header.rows, header.tensors[0].shape[1], kernels::kLeftPanelLines};
}

kernels::PackedShape RightShape(const BatchHeader& header) {
  return {header.rows, header.tensors[1].shape[1], kernels::kRightPanelLines};
}

// `what` says what the element is and what was expected; `col` is -1 for row weights.
absl::Status BadElement(std::string_view why, const TensorSpec& tensor, int64_t row, int64_t col,
                        std::string_view what) {
  std::map<std::string, std::string> metadata = {{"field", std::string(NameOf(tensor.role))},
                                                 {"row", absl::StrCat(row)}};
  std::string place(NameOf(tensor.role));
  if (tensor.role == TensorRole::kOutputsGrads) {
    metadata["source"] = absl::StrCat(tensor.source);
    absl::StrAppend(&place, " of source ", tensor.source);
  }
  absl::StrAppend(&place, ", row ", row);
  if (col >= 0) {
    metadata["column"] = absl::StrCat(col);
    absl::StrAppend(&place, ", column ", col);
  }
  return MakeError(absl::StatusCode::kInvalidArgument, why, absl::StrFormat("%s: %s", place, what),
                   std::move(metadata));
}

template <typename T>
constexpr DataType kStateType = sizeof(T) == 8 ? DataType::kFloat64 : DataType::kFloat32;

template <typename T>
TypedBatch<T>::TypedBatch(const BatchHeader& header, AlignedArray<T> left, AlignedArray<T> right,
                          AlignedArray<double> weights)
    : tensors_(header.tensors),
      gradient_scale_(header.gradient_scale),
      left_{.elements = std::move(left), .shape = LeftShape(header)},
      right_{.elements = std::move(right), .shape = RightShape(header)},
      weights_(std::move(weights)) {
  FillPadding(left_);
  FillPadding(right_);
  squares_ = {.left = left_.elements.get(), .right = right_.elements.get(), .rows = header.rows};
  examples_ = static_cast<double>(header.rows);
}

template <typename T>
absl::Status TypedBatch<T>::Add(int tensor, int64_t first_element,
                                std::span<const std::byte> elements) {
  const TensorSpec& spec = tensors_[tensor];
  switch (spec.role) {
    case TensorRole::kInputs:
      return AddSquares(spec, first_element, elements, left_);
    case TensorRole::kOutputsGrads:
      return AddSquares(spec, first_element, elements, right_);
    default:
      return AddWeights(spec, first_element, elements);
  }
}

template <typename T>
absl::Status TypedBatch<T>::AddSquares(const TensorSpec& spec, int64_t first,
                                       std::span<const std::byte> bytes, SquaredTensor<T>& to) {
  const double scale = spec.role == TensorRole::kInputs ? 1 : gradient_scale_;
  return WithElementType(spec.dtype, [&]<typename Wire>(std::type_identity<Wire>) {
    const int64_t count = bytes.size() / sizeof(Wire);
    const T largest = kernels::Ingest<Wire, T>({.from = bytes.data(),
                                                .first = first,
                                                .count = count,
                                                .scale = scale,
                                                .accumulate = spec.source > 0},
                                               to.shape, to.elements.get());
    if (std::isfinite(largest)) {
      to.max = std::max<double>(to.max, largest);
      return absl::OkStatus();
    }
    const int64_t cols = to.shape.cols;
    int64_t k = first;
    while (k + 1 < first + count && std::isfinite(to.at(k / cols, k % cols))) ++k;
    const double value = kernels::Load<Wire>(bytes.data() + (k - first) * sizeof(Wire));
    const T scaled = static_cast<T>(scale * value);
    const std::string_view type = NameOf(kStateType<T>);
    std::string what = absl::StrFormat("%g; expected a finite number", value);
    if (std::isfinite(scaled * scaled)) {
      what = absl::StrFormat(
          "%g, whose square makes the sum over the sources overflow %s; expected a smaller number",
          value, type);
    } else if (std::isfinite(value)) {
      what = absl::StrFormat("%g%s, whose square overflows %s; expected a smaller number", value,
                             scale == 1 ? "" : absl::StrFormat(" times gradient_scale %g", scale),
                             type);
    }
    return BadElement(reason::kNonFiniteInput, spec, k / cols, k % cols, what);
  });
}

template <typename T>
absl::Status TypedBatch<T>::AddWeights(const TensorSpec& spec, int64_t first,
                                       std::span<const std::byte> bytes) {
  return WithElementType(spec.dtype, [&]<typename Wire>(std::type_identity<Wire>) {
    for (size_t k = 0; k < bytes.size() / sizeof(Wire); ++k) {
      const double weight = kernels::Load<Wire>(bytes.data() + k * sizeof(Wire));
      if (!std::isfinite(weight) || weight < 0) {
        return BadElement(std::isfinite(weight) ? reason::kBadArgument : reason::kNonFiniteInput,
                          spec, first + k, -1,
                          absl::StrFormat("%g; expected a finite weight, 0 or above", weight));
      }
      weights_[first + k] = weight;
    }
    return absl::OkStatus();
  });
}

template <typename T>
absl::Status TypedBatch<T>::Finish() {
  if (weights_ != nullptr) {
    if (absl::Status status = ApplyWeights(); !status.ok()) return status;
  }
  squares_.left_max = left_.max;
  squares_.right_max = right_.max;
  return absl::OkStatus();
}

template <typename T>
absl::Status TypedBatch<T>::ApplyWeights() {
  double sum = 0;
  for (int64_t row = 0; row < squares_.rows; ++row) sum += weights_[row];
  if (!(sum >= kMinWeightSum && sum <= kMaxWeightSum)) {
    return BadArgument(
        "row_weights",
        absl::StrFormat("row_weights sum to %g; expected a positive sum, from %g to %g", sum,
                        kMinWeightSum, kMaxWeightSum));
  }
  examples_ = sum;
  const double most = *std::max_element(weights_.get(), weights_.get() + squares_.rows);
  if (!std::isfinite(static_cast<T>(most * right_.max))) {
    if (absl::Status status = CheckWeighted(); !status.ok()) return status;
  }
  constexpr int64_t kPanel = kernels::kRightPanelLines * kernels::kLine<T>;
  right_.max = 0;
  for (int64_t first = 0; first < right_.shape.cols; first += kPanel) {
    const int64_t width = kernels::PanelWidth<T>(right_.shape, first);
    T* squares = &right_.at(0, first);
    for (int64_t row = 0; row < squares_.rows; ++row, squares += width) {
      T largest = 0;
      for (int64_t k = 0; k < width; ++k) {
        squares[k] = static_cast<T>(weights_[row] * squares[k]);
        largest = std::max(largest, squares[k]);
      }
      right_.max = std::max<double>(right_.max, largest);
    }
  }
  return absl::OkStatus();
}

// Names the first weight that is too much for a gradient of its row.
template <typename T>
absl::Status TypedBatch<T>::CheckWeighted() const {
  for (int64_t row = 0; row < squares_.rows; ++row) {
    for (int64_t col = 0; col < right_.shape.cols; ++col) {
      const T square = right_.at(row, col);
      if (std::isfinite(static_cast<T>(weights_[row] * square))) continue;
      return BadElement(reason::kNonFiniteInput, tensors_.back(), row, -1,
                        absl::StrFormat("%g, times the squared gradient %g of column %d, "
                                        "overflows %s; expected a smaller weight",
                                        weights_[row], square, col, NameOf(kStateType<T>)));
    }
  }
  return absl::OkStatus();
}

bool HasWeights(const BatchHeader& header) {
  return header.tensors.back().role == TensorRole::kRowWeights;
}

}  // namespace

std::unique_ptr<FullyConnectedDiagonalBatch> NewFullyConnectedDiagonalBatch(
    const BatchHeader& header, DataType state, HostMemory* memory) {
  return WithStateType(
      state,
      [&]<typename T>(std::type_identity<T>) -> std::unique_ptr<FullyConnectedDiagonalBatch> {
        auto left = MakeAlignedArray<T>(kernels::PackedSize<T>(LeftShape(header)), memory);
        auto right = MakeAlignedArray<T>(kernels::PackedSize<T>(RightShape(header)), memory);
        AlignedArray<double> weights;
        if (HasWeights(header)) weights = MakeAlignedArray<double>(header.rows);
        if (!left || !right || (HasWeights(header) && !weights)) return nullptr;
        return std::make_unique<TypedBatch<T>>(header, std::move(left), std::move(right),
                                               std::move(weights));
      });
}

int64_t FullyConnectedDiagonalBatchBytes(const BatchHeader& header, DataType state) {
  const int64_t elements = WithStateType(state, [&]<typename T>(std::type_identity<T>) {
    return kernels::PackedSize<T>(LeftShape(header)) + kernels::PackedSize<T>(RightShape(header));
  });
  return elements * SizeOf(state) + (HasWeights(header) ? header.rows * 8 : 0);
}

}  // namespace fisherd::core
