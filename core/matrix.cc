#include "core/matrix.h"

#include <algorithm>
#include <cstring>

#include "core/element_type.h"

namespace fisherd::core {

std::unique_ptr<Matrix> Matrix::New(const MatrixShape& shape) {
  AlignedArray<std::byte> data = MakeAlignedArray<std::byte>(shape.bytes());
  if (data == nullptr) return nullptr;
  return std::unique_ptr<Matrix>(new Matrix(shape, std::move(data)));
}

absl::Status Matrix::Fill(double value) {
  if (device_ != nullptr) return device_->Fill(value);
  WithStateType(shape_.dtype, [&]<typename T>(std::type_identity<T>) {
    std::ranges::fill(elements<T>(), static_cast<T>(value));
  });
  return absl::OkStatus();
}

absl::Status Matrix::CopyFrom(const Matrix& other) {
  if (device_ != nullptr) {
    return other.device_ != nullptr ? device_->CopyFrom(*other.device_)
                                    : device_->Upload(0, other.bytes());
  }
  if (other.device_ != nullptr) return other.device_->Download(0, bytes());
  std::memcpy(data_.get(), other.data_.get(), shape_.bytes());
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Matrix>> OnHost(std::shared_ptr<const Matrix> matrix) {
  if (matrix->device() == nullptr) return matrix;
  std::shared_ptr<Matrix> copy = Matrix::New(matrix->shape());
  if (copy == nullptr) return absl::ResourceExhaustedError("no memory for a copy of the matrix");
  if (absl::Status status = copy->CopyFrom(*matrix); !status.ok()) return status;
  return copy;
}

}  // namespace fisherd::core
