// Memory of a factor's state or of a result.

#ifndef FISHERD_CORE_MATRIX_H_
#define FISHERD_CORE_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/device_elements.h"
#include "core/host_memory.h"
#include "core/tensor.h"

namespace fisherd::core {

// Sizes of a state: rows·cols elements of FLOAT32 or FLOAT64, row-major without padding.
struct MatrixShape {
  int64_t rows = 0;
  int64_t cols = 0;
  DataType dtype = DataType::kFloat32;

  int64_t size() const { return rows * cols; }
  int64_t bytes() const { return size() * SizeOf(dtype); }
  bool operator==(const MatrixShape&) const = default;
};

// A row-major matrix of FLOAT32 or FLOAT64, in host memory or in a device's. Not thread-safe.
class Matrix {
 public:
  // In host memory, with uninitialised elements; nullptr if there is no memory.
  static std::unique_ptr<Matrix> New(const MatrixShape& shape);
  // In a device's: for backends, whose NewMatrix gives what their steps write.
  Matrix(const MatrixShape& shape, std::unique_ptr<DeviceElements> device)
      : shape_(shape), device_(std::move(device)) {}

  const MatrixShape& shape() const { return shape_; }

  // Null: it is in host memory.
  DeviceElements* device() { return device_.get(); }
  const DeviceElements* device() const { return device_.get(); }

  // Of a matrix in host memory; T must be the type that shape().dtype names.
  template <typename T>
  std::span<T> elements() {
    return {reinterpret_cast<T*>(data_.get()), static_cast<size_t>(shape_.size())};
  }
  template <typename T>
  std::span<const T> elements() const {
    return {reinterpret_cast<const T*>(data_.get()), static_cast<size_t>(shape_.size())};
  }
  // All of them.
  std::span<std::byte> bytes() { return {data_.get(), static_cast<size_t>(shape_.bytes())}; }
  std::span<const std::byte> bytes() const {
    return {data_.get(), static_cast<size_t>(shape_.bytes())};
  }

  // Wherever it is. Errors are the device's.
  absl::Status Fill(double value);
  // `other` has the same shape; of two devices' both are of one kind.
  absl::Status CopyFrom(const Matrix& other);

 private:
  Matrix(const MatrixShape& shape, AlignedArray<std::byte> data)
      : shape_(shape), data_(std::move(data)) {}

  const MatrixShape shape_;
  AlignedArray<std::byte> data_;
  std::unique_ptr<DeviceElements> device_;
};

// The same elements in host memory: `matrix` itself if it is there, else a copy.
// RESOURCE_EXHAUSTED if there is no memory for it; the device's errors.
absl::StatusOr<std::shared_ptr<const Matrix>> OnHost(std::shared_ptr<const Matrix> matrix);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_MATRIX_H_
