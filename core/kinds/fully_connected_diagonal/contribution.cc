#include "core/kinds/fully_connected_diagonal/contribution.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/element_type.h"
#include "core/error.h"
#include "core/matrix.h"

namespace fisherd::core {
namespace {

// The sum over sources of C(s,t) [H, O], in the state's type.
template <typename T>
class Contribution final : public FullyConnectedDiagonalBatch {
 public:
  Contribution(const BatchHeader& header, AlignedArray<T> elements)
      : wire_(header.tensors[0].dtype),
        cols_(header.tensors[0].shape[1]),
        elements_(std::move(elements)) {
    examples_ = header.examples.value_or(static_cast<double>(header.rows));
    contribution_.elements = elements_.get();
  }

  absl::Status Add(int, int64_t first, std::span<const std::byte> bytes) override {
    return WithElementType(wire_, [&]<typename Wire>(std::type_identity<Wire>) {
      const int64_t count = bytes.size() / sizeof(Wire);
      T largest = 0;
      bool good = true;
      for (int64_t k = 0; k < count; ++k) {
        const auto x = static_cast<T>(kernels::Load<Wire>(bytes.data() + k * sizeof(Wire)));
        elements_[first + k] = x;
        largest = std::max(largest, x);
        good &= x >= 0 && std::isfinite(x);
      }
      contribution_.max = std::max<double>(contribution_.max, largest);
      return good ? absl::OkStatus() : BadElement<Wire>(first, bytes);
    });
  }

  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  template <typename Wire>
  absl::Status BadElement(int64_t first, std::span<const std::byte> bytes) const {
    const int64_t last = first + static_cast<int64_t>(bytes.size() / sizeof(Wire)) - 1;
    int64_t k = first;
    while (k < last && elements_[k] >= 0 && std::isfinite(elements_[k])) ++k;
    const double value = kernels::Load<Wire>(bytes.data() + (k - first) * sizeof(Wire));
    const int64_t row = k / cols_;
    const int64_t col = k % cols_;
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        std::isfinite(value) && value < 0 ? reason::kBadArgument : reason::kNonFiniteInput,
        absl::StrFormat("contribution, row %d, column %d: %g; expected a finite number, 0 or above",
                        row, col, value),
        {{"field", "contribution"}, {"row", absl::StrCat(row)}, {"column", absl::StrCat(col)}});
  }

  const DataType wire_;
  const int64_t cols_;
  const AlignedArray<T> elements_;
};

int64_t SizeOfContribution(const BatchHeader& header) {
  return header.tensors[0].shape[0] * header.tensors[0].shape[1];
}

}  // namespace

std::unique_ptr<FullyConnectedDiagonalBatch> NewContribution(const BatchHeader& header,
                                                             DataType state, HostMemory* memory) {
  return WithStateType(
      state,
      [&]<typename T>(std::type_identity<T>) -> std::unique_ptr<FullyConnectedDiagonalBatch> {
        auto elements = MakeAlignedArray<T>(SizeOfContribution(header), memory);
        if (elements == nullptr) return nullptr;
        return std::make_unique<Contribution<T>>(header, std::move(elements));
      });
}

int64_t ContributionBytes(const BatchHeader& header, DataType state) {
  return SizeOfContribution(header) * SizeOf(state);
}

}  // namespace fisherd::core
