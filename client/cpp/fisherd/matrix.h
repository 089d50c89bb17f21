// Matrices as the library takes and gives them: Eigen, row-major, float or double.

#ifndef FISHERD_MATRIX_H_
#define FISHERD_MATRIX_H_

#include <Eigen/Core>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fisherd/v1/types.pb.h"

namespace fisherd {

template <typename Scalar>
using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <typename Scalar>
using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

template <typename T>
concept FloatOrDouble = std::same_as<T, float> || std::same_as<T, double>;

// The type that elements of Scalar have on the wire.
template <FloatOrDouble Scalar>
inline constexpr v1::DataType kDataTypeOf =
    std::same_as<Scalar, float> ? v1::DATA_TYPE_FLOAT32 : v1::DATA_TYPE_FLOAT64;

// Eigen objects whose rows lie in memory, each contiguous: row-major matrices, their blocks of rows
// or columns, maps of foreign memory, and vectors. Not expressions such as 2 * a, and not
// column-major matrices: assign those to a Matrix first.
template <typename T>
concept ContiguousRows = FloatOrDouble<typename T::Scalar> &&
                             (Eigen::internal::traits<T>::Flags& Eigen::DirectAccessBit) != 0 &&
                         T::InnerStrideAtCompileTime == 1 &&
                         (bool{T::IsRowMajor} || T::ColsAtCompileTime == 1);

// A view of rows of floats or doubles; whoever makes it keeps the elements alive. A default one is
// absent. Copied freely.
class MatrixView {
 public:
  MatrixView() = default;

  // Implicit, so that matrices can be named where views are wanted.
  template <typename Derived>
  requires ContiguousRows<Derived> MatrixView(const Eigen::MatrixBase<Derived>& matrix)
      : dtype_(kDataTypeOf<typename Derived::Scalar>),
        element_size_(sizeof(typename Derived::Scalar)),
        rows_(matrix.rows()),
        cols_(matrix.cols()),
        data_(reinterpret_cast<const std::byte*>(matrix.derived().data())),
        stride_(matrix.derived().IsRowMajor ? matrix.derived().outerStride() : 1) {}

  bool present() const { return dtype_ != v1::DATA_TYPE_UNSPECIFIED; }
  v1::DataType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t row_bytes() const { return cols_ * element_size_; }

  // The bytes of one row.
  std::span<const std::byte> row(int64_t index) const {
    return {data_ + index * stride_ * element_size_, static_cast<size_t>(row_bytes())};
  }
  // Whether each row follows on the one before it.
  bool contiguous() const { return stride_ == cols_ || rows_ <= 1; }
  // The bytes of rows [first, first + count), if contiguous.
  std::span<const std::byte> rows(int64_t first, int64_t count) const {
    return {row(first).data(), static_cast<size_t>(count * row_bytes())};
  }

 private:
  v1::DataType dtype_ = v1::DATA_TYPE_UNSPECIFIED;
  int64_t element_size_ = 0;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  const std::byte* data_ = nullptr;
  int64_t stride_ = 0;  // elements from one row to the next
};

}  // namespace fisherd

#endif  // FISHERD_MATRIX_H_
