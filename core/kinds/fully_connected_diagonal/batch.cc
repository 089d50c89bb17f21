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

namespace fisherd::core {
namespace {

// Squares of T beside each other: those of one role.
template <typename T>
struct SquaredTensor {
  AlignedArray<T> elements;
  int64_t cols = 0;
  double max = 0;
};

// The state's type T of a wire element times `scale`.
template <typename Wire, typename T>
T Scaled(const std::byte* element, double scale) {
  const auto x = kernels::Load<Wire>(element);
  return scale == 1 ? static_cast<T>(x) : static_cast<T>(scale * static_cast<double>(x));
}

// Squares `count` elements into (or, accumulating, onto) `to`; false if one of these is not finite.
// `max` rises to the largest.
template <typename Wire, typename T, bool kAccumulate>
bool SquareRun(const std::byte* from, int64_t count, double scale, T* to, double& max) {
  // The bits of floats from 0 up are in the order of their values, with infinity, NaN and whatever
  // has a sign at the end: one comparison of integers an element finds the largest and the bad.
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  Bits largest = 0;
  for (int64_t k = 0; k < count; ++k) {
    const T x = Scaled<Wire, T>(from + k * sizeof(Wire), scale);
    to[k] = kAccumulate ? to[k] + x * x : x * x;
    largest = std::max(largest, std::bit_cast<Bits>(to[k]));
  }
  max = std::max<double>(max, std::bit_cast<T>(largest));
  return std::isfinite(std::bit_cast<T>(largest));
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

  const std::vector<TensorSpec> tensors_;
  const double gradient_scale_;
  SquaredTensor<T> left_;
  SquaredTensor<T> right_;
  const AlignedArray<double> weights_;  // null if the batch has none
};

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
      left_{.elements = std::move(left), .cols = header.tensors[0].shape[1]},
      right_{.elements = std::move(right), .cols = header.tensors[1].shape[1]},
      weights_(std::move(weights)) {
  squares_ = {.left = left_.elements.get(),
              .right = right_.elements.get(),
              .rows = header.rows,
              .examples = static_cast<double>(header.rows)};
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
  const bool accumulate = spec.source > 0;
  return WithElementType(spec.dtype, [&]<typename Wire>(std::type_identity<Wire>) {
    const int64_t count = bytes.size() / sizeof(Wire);
    T* elements = to.elements.get() + first;
    const bool finite =
        accumulate ? SquareRun<Wire, T, true>(bytes.data(), count, scale, elements, to.max)
                   : SquareRun<Wire, T, false>(bytes.data(), count, scale, elements, to.max);
    if (finite) return absl::OkStatus();
    int64_t k = 0;
    while (std::isfinite(elements[k])) ++k;
    const double value = kernels::Load<Wire>(bytes.data() + k * sizeof(Wire));
    const T scaled = Scaled<Wire, T>(bytes.data() + k * sizeof(Wire), scale);
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
    return BadElement(reason::kNonFiniteInput, spec, (first + k) / to.cols, (first + k) % to.cols,
                      what);
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
  squares_.examples = sum;
  right_.max = 0;
  for (int64_t row = 0; row < squares_.rows; ++row) {
    T* squares = right_.elements.get() + row * right_.cols;
    for (int64_t col = 0; col < right_.cols; ++col) {
      const T weighted = static_cast<T>(weights_[row] * squares[col]);
      if (!std::isfinite(weighted)) {
        return BadElement(reason::kNonFiniteInput, tensors_.back(), row, -1,
                          absl::StrFormat("%g, times the squared gradient %g of column %d, "
                                          "overflows %s; expected a smaller weight",
                                          weights_[row], squares[col], col, NameOf(kStateType<T>)));
      }
      squares[col] = weighted;
      right_.max = std::max<double>(right_.max, weighted);
    }
  }
  return absl::OkStatus();
}

bool HasWeights(const BatchHeader& header) {
  return header.tensors.back().role == TensorRole::kRowWeights;
}

}  // namespace

std::unique_ptr<FullyConnectedDiagonalBatch> NewFullyConnectedDiagonalBatch(
    const BatchHeader& header, DataType state) {
  return WithStateType(
      state,
      [&]<typename T>(std::type_identity<T>) -> std::unique_ptr<FullyConnectedDiagonalBatch> {
        auto left = MakeAlignedArray<T>(header.rows * header.tensors[0].shape[1]);
        auto right = MakeAlignedArray<T>(header.rows * header.tensors[1].shape[1]);
        AlignedArray<double> weights;
        if (HasWeights(header)) weights = MakeAlignedArray<double>(header.rows);
        if (!left || !right || (HasWeights(header) && !weights)) return nullptr;
        return std::make_unique<TypedBatch<T>>(header, std::move(left), std::move(right),
                                               std::move(weights));
      });
}

int64_t FullyConnectedDiagonalBatchBytes(const BatchHeader& header, DataType state) {
  const int64_t cols = header.tensors[0].shape[1] + header.tensors[1].shape[1];
  return header.rows * (cols * SizeOf(state) + (HasWeights(header) ? 8 : 0));
}

}  // namespace fisherd::core
