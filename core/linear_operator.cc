#include "core/linear_operator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/element_type.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::core {
namespace {

using Power = LinearOperatorDiag::Power;

// Elements go through a buffer of this many doubles, so that each of the steps on their way (find,
// take the power, round) is one loop over one type.
constexpr int64_t kBlock = 512;
using Buffer = std::array<double, kBlock>;

// Where the elements of a tensor of a view lie in the matrix.
struct Place {
  int64_t offset = 0;  // of the first element
  int64_t width = 0;   // > 0: transposed, elements of one output that follow on each other
};

Place PlaceOf(const TensorSpec& tensor, const TensorView& view, const MatrixShape& matrix) {
  if (tensor.role == TensorRole::kBias) return {.offset = (matrix.rows - 1) * matrix.cols};
  if (view.layout == Layout::kInOut) return {};
  return {.width = tensor.shape[1]};
}

// Writes elements first … first + count of the tensor at `place`, divided by `divisor`.
template <typename T>
void ReadValues(std::span<const T> matrix, int64_t cols, const Place& place, double divisor,
                int64_t first, int64_t count, double* out) {
  if (place.width == 0) {
    const T* from = matrix.data() + place.offset + first;
    for (int64_t k = 0; k < count; ++k) out[k] = from[k] / divisor;
    return;
  }
  int64_t output = first / place.width;
  int64_t input = first % place.width;
  for (int64_t k = 0; k < count; ++k) {
    out[k] = matrix[input * cols + output] / divisor;
    if (++input == place.width) {
      input = 0;
      ++output;
    }
  }
}

// values ← (values + λ)^e, exactly rounded where e allows it.
void TakePower(const Power& power, std::span<double> values) {
  const double damping = power.damping;
  const double e = power.exponent;
  if (e == 0) {
    std::ranges::fill(values, 1.0);
  } else if (e == 1) {
    for (double& v : values) v += damping;
  } else if (e == -1) {
    for (double& v : values) v = 1 / (v + damping);
  } else if (e == 0.5) {
    for (double& v : values) v = std::sqrt(v + damping);
  } else if (e == -0.5) {
    for (double& v : values) v = 1 / std::sqrt(v + damping);
  } else if (e == 2) {
    for (double& v : values) v = (v + damping) * (v + damping);
  } else {
    for (double& v : values) v = std::pow(v + damping, e);
  }
}

// Reads one tensor of a view, block by block.
class ElementReader {
 public:
  ElementReader(const CovarianceView& covariance, const std::optional<Power>& power,
                const TensorSpec& tensor, const TensorView& view)
      : covariance_(covariance),
        power_(power),
        place_(PlaceOf(tensor, view, covariance.matrix->shape())) {}

  // Elements first … first + count (at most kBlock), in `buffer`.
  std::span<const double> Read(int64_t first, int64_t count, Buffer& buffer) const {
    const Matrix& matrix = *covariance_.matrix;
    WithStateType(matrix.shape().dtype, [&]<typename T>(std::type_identity<T>) {
      ReadValues<T>(matrix.elements<T>(), matrix.shape().cols, place_, covariance_.divisor, first,
                    count, buffer.data());
    });
    const std::span<double> values(buffer.data(), count);
    if (power_) TakePower(*power_, values);
    return values;
  }

 private:
  const CovarianceView& covariance_;
  const std::optional<Power>& power_;
  const Place place_;
};

// Calls visit(done, values) for blocks of `count` elements from `first` on.
template <typename F>
void ForEachBlock(const ElementReader& reader, int64_t first, int64_t count, F&& visit) {
  Buffer buffer;
  for (int64_t done = 0; done < count; done += kBlock) {
    visit(done, reader.Read(first + done, std::min(kBlock, count - done), buffer));
  }
}

bool FiniteAs(DataType dtype, double x) {
  return WithElementType(dtype, [&]<typename T>(std::type_identity<T>) {
    std::array<std::byte, sizeof(T)> bytes;
    kernels::Store<T>(x, bytes.data());
    return std::isfinite(kernels::Load<T>(bytes.data()));
  });
}

std::pair<double, double> MinMax(const Matrix& matrix) {
  return WithStateType(matrix.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    T least = std::numeric_limits<T>::infinity();
    T most = -std::numeric_limits<T>::infinity();
    for (const T value : matrix.elements<T>()) {
      least = std::min(least, value);
      most = std::max(most, value);
    }
    return std::pair<double, double>(least, most);
  });
}

absl::Status ProductError(absl::StatusCode code, std::string_view why, const TensorSpec& tensor,
                          int64_t element, std::string_view what, double value) {
  return MakeError(
      code, why,
      absl::StrFormat("element %d of %s: %s is %g; expected a finite %s", element, Describe(tensor),
                      what, value, NameOf(tensor.dtype)),
      {{"field", std::string(NameOf(tensor.role))}, {"element", absl::StrCat(element)}});
}

}  // namespace

double OperatorSpec::power() const {
  switch (kind) {
    case OperatorKind::kMatpower:
      return exponent;
    case OperatorKind::kCholesky:
      return 0.5;
    case OperatorKind::kCholeskyInverse:
      return -0.5;
    case OperatorKind::kCovariance:
      break;
  }
  return 1;
}

std::string Describe(const OperatorSpec& op) {
  const double* value = std::get_if<double>(&op.damping);
  const std::string damping =
      "damping " + (value ? absl::StrCat(*value) : Quote(std::get<std::string>(op.damping)));
  switch (op.kind) {
    case OperatorKind::kMatpower:
      return absl::StrFormat("matpower(%g, %s)", op.exponent, damping);
    case OperatorKind::kCholesky:
      return absl::StrFormat("cholesky(%s)", damping);
    case OperatorKind::kCholeskyInverse:
      return absl::StrFormat("cholesky_inverse(%s)", damping);
    case OperatorKind::kCovariance:
      break;
  }
  return "covariance";
}

absl::Status CheckOperator(const OperatorSpec& op) {
  if (op.kind == OperatorKind::kCovariance) return absl::OkStatus();
  if (op.kind == OperatorKind::kMatpower && !std::isfinite(op.exponent)) {
    return BadArgument("exponent",
                       absl::StrCat("exponent is ", op.exponent, "; expected a finite number"));
  }
  if (const auto* name = std::get_if<std::string>(&op.damping)) return CheckName("damping", *name);
  return CheckDampingValue(std::get<double>(op.damping));
}

absl::Status CheckDampingValue(double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return BadArgument("damping",
                     absl::StrCat("damping is ", value, "; expected a finite number, 0 or above"));
}

LinearOperatorDiag::LinearOperatorDiag(CovarianceView covariance, bool has_bias,
                                       std::optional<Power> power)
    : covariance_(std::move(covariance)), has_bias_(has_bias), power_(power) {}

int64_t LinearOperatorDiag::dimension() const { return covariance_.matrix->shape().size(); }

std::vector<TensorSpec> LinearOperatorDiag::Tensors(const TensorView& view) const {
  const MatrixShape& matrix = covariance_.matrix->shape();
  const auto plane = [&](TensorRole role, int64_t inputs) {
    std::vector<int64_t> shape = {inputs, matrix.cols};
    if (view.layout == Layout::kOutIn) std::swap(shape[0], shape[1]);
    return TensorSpec{.role = role, .dtype = view.dtype, .shape = std::move(shape)};
  };
  if (!view.split_bias) return {plane(TensorRole::kResult, matrix.rows)};
  if (!has_bias_) return {plane(TensorRole::kWeight, matrix.rows)};
  return {plane(TensorRole::kWeight, matrix.rows - 1),
          {.role = TensorRole::kBias, .dtype = view.dtype, .shape = {matrix.cols}}};
}

absl::Status LinearOperatorDiag::CheckFinite(DataType dtype) const {
  const auto [least, most] = MinMax(*covariance_.matrix);
  const double smallest_v = least / covariance_.divisor;
  const double largest_v = most / covariance_.divisor;
  const Power power = power_.value_or(Power{});
  // Elements lie between those of the extremes, but for the rounding of pow.
  std::array<double, 2> extremes = {smallest_v, largest_v};
  TakePower(power, extremes);
  const double safe = 0.99 * MaxOf(dtype);
  const bool base_finite = std::isfinite(largest_v + power.damping);
  if (base_finite && extremes[0] <= safe && extremes[1] <= safe) return absl::OkStatus();

  const TensorView view{.dtype = dtype};
  const TensorSpec whole = Tensors(view).front();
  int64_t not_finite = 0;
  ForEachBlock(ElementReader(covariance_, std::nullopt, whole, view), 0, dimension(),
               [&](int64_t, std::span<const double> values) {
                 for (double value : values) {
                   // An infinite base may have a finite power, which would be that of no number.
                   const bool overflow = !std::isfinite(value + power.damping);
                   TakePower(power, {&value, 1});
                   not_finite += overflow || !FiniteAs(dtype, value);
                 }
               });
  if (not_finite == 0) return absl::OkStatus();
  const std::string what =
      power_ ? absl::StrFormat("(v + %g)^%g", power.damping, power.exponent) : "the covariance v";
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
      absl::StrFormat(
          "%s is not a finite %s in %d of %d entries; the smallest v is %g; expected %s", what,
          NameOf(dtype), not_finite, dimension(), smallest_v,
          power_ ? "another damping or exponent, or a wider dtype" : "a wider dtype"),
      {{"entries", absl::StrCat(not_finite)}, {"smallest_value", absl::StrCat(smallest_v)}});
}

void LinearOperatorDiag::Elements(const TensorView& view, int tensor, int64_t first,
                                  std::span<std::byte> out) const {
  const TensorSpec spec = Tensors(view)[tensor];
  const ElementReader reader(covariance_, power_, spec, view);
  WithElementType(view.dtype, [&]<typename T>(std::type_identity<T>) {
    ForEachBlock(reader, first, out.size() / sizeof(T),
                 [&](int64_t done, std::span<const double> values) {
                   std::byte* to = out.data() + done * sizeof(T);
                   for (const double value : values) {
                     kernels::Store<T>(value, to);
                     to += sizeof(T);
                   }
                 });
  });
}

absl::Status LinearOperatorDiag::Multiply(const TensorView& view, int tensor, int64_t first,
                                          std::span<const std::byte> x,
                                          std::span<std::byte> out) const {
  const TensorSpec spec = Tensors(view)[tensor];
  const ElementReader reader(covariance_, power_, spec, view);
  absl::Status status;
  WithElementType(view.dtype, [&]<typename T>(std::type_identity<T>) {
    const auto multiply = [&](int64_t done, std::span<const double> values) {
      for (size_t k = 0; k < values.size() && status.ok(); ++k) {
        const double factor = kernels::Load<T>(x.data() + (done + k) * sizeof(T));
        std::byte* to = out.data() + (done + k) * sizeof(T);
        kernels::Store<T>(values[k] * factor, to);
        if (std::isfinite(kernels::Load<T>(to))) continue;
        status = std::isfinite(factor)
                     ? ProductError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                                    spec, first + done + k, "the product", values[k] * factor)
                     : ProductError(absl::StatusCode::kInvalidArgument, reason::kNonFiniteInput,
                                    spec, first + done + k, "x", factor);
      }
    };
    ForEachBlock(reader, first, out.size() / sizeof(T), multiply);
  });
  return status;
}

void LinearOperatorDiag::Materialize(Matrix& out) const {
  WithStateType(out.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    Elements({.dtype = out.shape().dtype}, 0, 0, std::as_writable_bytes(out.elements<T>()));
  });
}

}  // namespace fisherd::core
