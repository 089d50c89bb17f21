// What a reader gets: an operator over one version of a factor, served in pieces.

#ifndef FISHERD_CORE_LINEAR_OPERATOR_H_
#define FISHERD_CORE_LINEAR_OPERATOR_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/device_elements.h"
#include "core/kernels/power.h"
#include "core/matrix.h"
#include "core/tensor.h"

namespace fisherd::core {

enum class OperatorKind { kCovariance, kMatpower, kCholesky, kCholeskyInverse };

// λ itself, or the name of a damping function.
using Damping = std::variant<double, std::string>;

// What is read of a covariance (SPEC §3).
struct OperatorSpec {
  OperatorKind kind = OperatorKind::kCovariance;
  double exponent = 1;    // matpower only
  Damping damping = 0.0;  // not for the covariance

  // The exponent e of (v + λ)^e: 1 for the covariance, ½ and −½ for the Cholesky factors.
  double power() const;
  bool operator==(const OperatorSpec&) const = default;
};

// "matpower(-0.5, damping "global")", for messages.
std::string Describe(const OperatorSpec& op);

// INVALID_ARGUMENT unless the exponent is finite and λ is a name or a value that is finite and not
// negative.
absl::Status CheckOperator(const OperatorSpec& op);
absl::Status CheckDampingValue(double value);

enum class Layout { kInOut, kOutIn };

// How a caller wants elements laid out.
struct TensorView {
  Layout layout = Layout::kInOut;
  bool split_bias = false;
  DataType dtype = DataType::kFloat32;  // not kUnspecified
};

// Immutable and thread-safe. Keeps the version that it reads alive.
class LinearOperator {
 public:
  virtual ~LinearOperator() = default;

  // The name that tf.contrib.kfac's operators have: "LinearOperatorDiag".
  virtual std::string_view class_name() const = 0;

  // The operator is a square matrix of this size.
  virtual int64_t dimension() const = 0;

  // The tensors that hold the elements in this view; also those of x and of the product.
  virtual std::vector<TensorSpec> Tensors(const TensorView& view) const = 0;

  // FAILED_PRECONDITION (NON_FINITE_RESULT), with how many elements and the smallest v, unless
  // every element is finite in `dtype`. To be called before Elements or Multiply.
  virtual absl::Status CheckFinite(DataType dtype) const = 0;

  // Writes elements first … of a tensor of the view; `out` is a whole number of elements. Errors,
  // of this and of all that follows, are those of a device that has them.
  virtual absl::Status Elements(const TensorView& view, int tensor, int64_t first,
                                std::span<std::byte> out) const = 0;

  // Writes the product of elements first … with x. Both spans hold the same whole number of
  // elements, in the view's dtype; `x` need not be aligned. INVALID_ARGUMENT (NON_FINITE_INPUT) if
  // x is not finite, FAILED_PRECONDITION (NON_FINITE_RESULT) if a product is not.
  virtual absl::Status Multiply(const TensorView& view, int tensor, int64_t first,
                                std::span<const std::byte> x, std::span<std::byte> out) const = 0;

  // The elements in the state's own layout and type, to where the state is. CheckFinite must have
  // passed.
  virtual absl::Status Materialize(Matrix& out) const = 0;
};

// A covariance as its owner keeps it: value v = matrix / divisor.
struct CovarianceView {
  std::shared_ptr<const Matrix> matrix;  // or an alias that keeps a pinned version alive
  double divisor = 1;                    // total_weight with zero_debias, else 1
  // Bounds of the matrix's elements, as far as they are known.
  double least = 0;
  double most = std::numeric_limits<double>::infinity();
};

// v, or (v + λ)^e where `damped`, entry-wise, over a matrix [H, O] whose last row is the bias if
// there is one. Computed on the way out: in the state's type if it is read in that, else in 64 bits
// and rounded once (kernels/power.h).
class LinearOperatorDiag final : public LinearOperator {
 public:
  struct Power {
    double exponent = 1;
    double damping = 0;
  };
  // Without `power`, the elements are v.
  LinearOperatorDiag(CovarianceView covariance, bool has_bias, std::optional<Power> power);

  std::string_view class_name() const override { return "LinearOperatorDiag"; }
  int64_t dimension() const override;
  std::vector<TensorSpec> Tensors(const TensorView& view) const override;
  absl::Status CheckFinite(DataType dtype) const override;
  absl::Status Elements(const TensorView& view, int tensor, int64_t first,
                        std::span<std::byte> out) const override;
  absl::Status Multiply(const TensorView& view, int tensor, int64_t first,
                        std::span<const std::byte> x, std::span<std::byte> out) const override;
  absl::Status Materialize(Matrix& out) const override;

 private:
  // Whether every element is for certain, if v's are between these.
  bool AllFinite(DataType dtype, double least, double most) const;
  // Looks at each as it is served.
  absl::StatusOr<int64_t> CountNotFinite(DataType dtype) const;
  ElementsSpec SpecOf(const TensorView& view, const TensorSpec& tensor) const;
  absl::Status MultiplyOnDevice(const ElementsSpec& elements, const TensorSpec& tensor,
                                int64_t first, std::span<const std::byte> x,
                                std::span<std::byte> out) const;

  const CovarianceView covariance_;
  const bool has_bias_;
  kernels::PowerSpec spec_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_LINEAR_OPERATOR_H_
