// Memory of a factor's state or of a result.

#ifndef FISHERD_CORE_MATRIX_H_
#define FISHERD_CORE_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/tensor.h"

namespace fisherd::core {

inline constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

struct AlignedFree {
  void operator()(void* memory) const;
};

// `count` elements, aligned to kAlignment, not initialised; null if there is no memory.
template <typename T>
using AlignedArray = std::unique_ptr<T[], AlignedFree>;
void* AllocateAligned(size_t bytes);
template <typename T>
AlignedArray<T> MakeAlignedArray(size_t count) {
  return AlignedArray<T>(static_cast<T*>(AllocateAligned(count * sizeof(T))));
}

// Sizes of a state: rows·cols elements of FLOAT32 or FLOAT64, row-major without padding.
struct MatrixShape {
  int64_t rows = 0;
  int64_t cols = 0;
  DataType dtype = DataType::kFloat32;

  int64_t size() const { return rows * cols; }
  int64_t bytes() const { return size() * SizeOf(dtype); }
  bool operator==(const MatrixShape&) const = default;
};

// A row-major matrix of FLOAT32 or FLOAT64. Not thread-safe.
class Matrix {
 public:
  // With uninitialised elements; nullptr if there is no memory.
  static std::unique_ptr<Matrix> New(const MatrixShape& shape);

  const MatrixShape& shape() const { return shape_; }

  // T must be the type that shape().dtype names.
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

  void Fill(double value);
  // `other` has the same shape.
  void CopyFrom(const Matrix& other);

 private:
  Matrix(const MatrixShape& shape, AlignedArray<std::byte> data)
      : shape_(shape), data_(std::move(data)) {}

  const MatrixShape shape_;
  AlignedArray<std::byte> data_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_MATRIX_H_
