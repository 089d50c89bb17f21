#include "core/kinds/fully_connected_diagonal/saved_batch.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "core/element_type.h"
#include "core/kernels/packed.h"

namespace fisherd::core {
namespace {

// As it lies in the log: eight numbers of 64 bits.
struct Head {
  int64_t rows = 0;  // N as sent; 0: a contribution
  double examples = 0;
  double left_max = 0;
  double right_max = 0;
  double contribution_max = 0;
  int64_t reserved[3] = {};
};
static_assert(sizeof(Head) == 64);

// Bytes of the two sides, or of a contribution and nothing.
struct Sides {
  int64_t left = 0;
  int64_t right = 0;
  int64_t all() const { return left + right; }
};

Sides SidesOf(int64_t rows, int64_t cols, const MatrixShape& state) {
  if (rows == 0) return {.left = state.bytes()};
  return WithStateType(state.dtype, [&]<typename T>(std::type_identity<T>) -> Sides {
    return {.left = kernels::PackedSize<T>({rows, cols, kernels::kLeftPanelLines}) *
                    static_cast<int64_t>(sizeof(T)),
            .right = kernels::PackedSize<T>({rows, state.cols, kernels::kRightPanelLines}) *
                     static_cast<int64_t>(sizeof(T))};
  });
}

int64_t RowsOf(const FullyConnectedDiagonalBatch& batch) {
  return batch.is_contribution() ? 0 : batch.squares().rows;
}

class LoadedBatch final : public FullyConnectedDiagonalBatch {
 public:
  LoadedBatch(const Head& head, AlignedArray<std::byte> left, AlignedArray<std::byte> right)
      : left_(std::move(left)), right_(std::move(right)) {
    examples_ = head.examples;
    if (head.rows == 0) {
      contribution_ = {.elements = left_.get(), .max = head.contribution_max};
      return;
    }
    squares_ = {.left = left_.get(),
                .right = right_.get(),
                .rows = head.rows,
                .left_max = head.left_max,
                .right_max = head.right_max};
  }

  absl::Status Add(int, int64_t, std::span<const std::byte>) override { return Complete(); }
  absl::Status Finish() override { return Complete(); }

 private:
  static absl::Status Complete() { return absl::InternalError("the batch is complete"); }

  const AlignedArray<std::byte> left_;
  const AlignedArray<std::byte> right_;
};

}  // namespace

int64_t SavedBatchBytes(const FullyConnectedDiagonalBatch& batch, int64_t cols,
                        const MatrixShape& state) {
  return static_cast<int64_t>(sizeof(Head)) + SidesOf(RowsOf(batch), cols, state).all();
}

std::string SaveBatch(const FullyConnectedDiagonalBatch& batch, int64_t cols,
                      const MatrixShape& state) {
  const Head head = {.rows = RowsOf(batch),
                     .examples = batch.examples(),
                     .left_max = batch.squares().left_max,
                     .right_max = batch.squares().right_max,
                     .contribution_max = batch.contribution().max};
  const Sides sides = SidesOf(head.rows, cols, state);
  std::string bytes(sizeof(head) + static_cast<size_t>(sides.all()), '\0');
  std::memcpy(bytes.data(), &head, sizeof(head));
  char* const elements = bytes.data() + sizeof(head);
  const bool reduced = batch.is_contribution();
  std::memcpy(elements, reduced ? batch.contribution().elements : batch.squares().left,
              static_cast<size_t>(sides.left));
  if (!reduced) {
    std::memcpy(elements + sides.left, batch.squares().right, static_cast<size_t>(sides.right));
  }
  return bytes;
}

std::unique_ptr<FullyConnectedDiagonalBatch> LoadBatch(std::string_view bytes, int64_t cols,
                                                       const MatrixShape& state) {
  Head head;
  if (bytes.size() < sizeof(head)) return nullptr;
  std::memcpy(&head, bytes.data(), sizeof(head));
  bytes.remove_prefix(sizeof(head));
  // Each row takes a byte at least, so that nothing below overflows.
  if (head.rows < 0 || head.rows > std::ssize(bytes)) return nullptr;
  if (!(head.examples > 0) || !std::isfinite(head.examples)) return nullptr;
  const Sides sides = SidesOf(head.rows, cols, state);
  if (sides.all() != std::ssize(bytes)) return nullptr;
  auto left = MakeAlignedArray<std::byte>(static_cast<size_t>(sides.left));
  auto right = MakeAlignedArray<std::byte>(static_cast<size_t>(sides.right));
  if (left == nullptr || right == nullptr) return nullptr;
  std::memcpy(left.get(), bytes.data(), static_cast<size_t>(sides.left));
  std::memcpy(right.get(), bytes.data() + sides.left, static_cast<size_t>(sides.right));
  return std::make_unique<LoadedBatch>(head, std::move(left), std::move(right));
}

}  // namespace fisherd::core
