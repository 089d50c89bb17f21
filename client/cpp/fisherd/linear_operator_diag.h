// A diagonal linear operator, as tf.contrib.kfac's reads return it.

#ifndef FISHERD_LINEAR_OPERATOR_DIAG_H_
#define FISHERD_LINEAR_OPERATOR_DIAG_H_

#include <cstdint>
#include <utility>

#include "fisherd/matrix.h"

namespace fisherd {

// A diagonal operator over the parameters of one fully-connected layer: a square matrix whose size
// is the number of weights and biases, I·O + (O if there is a bias).
//
// The order of the parameters is: the weight's elements, row-major in the layout that was read
// ([I, O], or [O, I]), then the bias's. With the default layout [I, O] this is the covariance's own
// order, [H, O] with the bias as the last row.
//
// A value: copied and moved freely, thread-safe while not modified. Views live as long as it does
// and is not assigned to.
template <FloatOrDouble Scalar>
class LinearOperatorDiag {
 public:
  // An operator of no parameters.
  LinearOperatorDiag() = default;

  // `diagonal` holds weight_rows·weight_cols elements of the weight, then bias_size of the bias.
  LinearOperatorDiag(int64_t weight_rows, int64_t weight_cols, int64_t bias_size,
                     Vector<Scalar> diagonal)
      : weight_rows_(weight_rows),
        weight_cols_(weight_cols),
        bias_size_(bias_size),
        diagonal_(std::move(diagonal)) {
    eigen_assert(diagonal_.size() == weight_rows * weight_cols + bias_size);
  }

  // (rows, columns) of the operator as a matrix; both are the number of parameters.
  std::pair<int64_t, int64_t> shape() const { return {diagonal_.size(), diagonal_.size()}; }

  // The diagonal, in the order of the parameters.
  const Vector<Scalar>& diag_part() const { return diagonal_; }

  // The weight's part of the diagonal, [I, O] or [O, I].
  Eigen::Map<const Matrix<Scalar>> weight() const {
    return {diagonal_.data(), weight_rows_, weight_cols_};
  }

  // The bias's part of the diagonal, [O]; empty without a bias.
  Eigen::Map<const Vector<Scalar>> bias() const {
    return {diagonal_.data() + weight_rows_ * weight_cols_, bias_size_};
  }
  bool has_bias() const { return bias_size_ > 0; }

  // operator · x, for x of shape [parameters] or [parameters, K].
  template <typename X>
  auto matmul(const Eigen::MatrixBase<X>& x) const {
    return (diagonal_.asDiagonal() * x).eval();
  }

  // operator⁻¹ · y. Infinite or NaN where the diagonal is 0.
  template <typename Y>
  auto solve(const Eigen::MatrixBase<Y>& y) const {
    return (diagonal_.cwiseInverse().asDiagonal() * y).eval();
  }

  // The whole square matrix: parameters² elements, for small layers only.
  Matrix<Scalar> to_dense() const { return diagonal_.asDiagonal().toDenseMatrix(); }

 private:
  int64_t weight_rows_ = 0;
  int64_t weight_cols_ = 0;
  int64_t bias_size_ = 0;
  Vector<Scalar> diagonal_;
};

}  // namespace fisherd

#endif  // FISHERD_LINEAR_OPERATOR_DIAG_H_
