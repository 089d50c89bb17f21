#include "core/linear_operator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/element_type.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::core {
namespace {

// Elements that go through a buffer do so in blocks of this many.
constexpr int64_t kBlock = 512;
template <typename T>
using Buffer = std::array<T, kBlock>;

// Elements that come from a device at once, where they are only looked at.
constexpr int64_t kDeviceBlock = 1 << 20;

std::byte* BytesOf(auto* elements) { return reinterpret_cast<std::byte*>(elements); }

ElementPlace PlaceOf(const TensorSpec& tensor, const TensorView& view, const MatrixShape& matrix) {
  if (tensor.role == TensorRole::kBias) return {.offset = (matrix.rows - 1) * matrix.cols};
  if (view.layout == Layout::kInOut) return {};
  return {.width = tensor.shape[1]};
}

// Where element k of the tensor at `place` lies in the matrix.
int64_t IndexOf(const ElementPlace& place, const MatrixShape& matrix, int64_t k) {
  if (place.width == 0) return place.offset + k;
  return place.offset + k % place.width * matrix.cols + k / place.width;
}

// Elements first … first + count of the tensor at `place`, as C: where they lie, or in `buffer`.
template <typename T, typename C>
std::span<const C> Gather(const Matrix& matrix, const ElementPlace& place, int64_t first,
                          int64_t count, Buffer<C>& buffer) {
  const T* from = matrix.elements<T>().data() + place.offset;
  if (place.width == 0) {
    if constexpr (std::is_same_v<T, C>) return {from + first, static_cast<size_t>(count)};
    std::copy_n(from + first, count, buffer.begin());
  } else {
    int64_t output = first / place.width;
    int64_t input = first % place.width;
    for (int64_t k = 0; k < count; ++k) {
      buffer[k] = from[input * matrix.shape().cols + output];
      if (++input == place.width) {
        input = 0;
        ++output;
      }
    }
  }
  return std::span(buffer).first(count);
}

// Calls visit(type, done, elements) for elements first … of a tensor of the view, block by block.
// They take `bytes` as the view's type. Where that is the state's, so is theirs, and without a
// buffer they are one block; else they are doubles, to be rounded once.
template <typename F>
void ForEachBlock(const Matrix& matrix, const TensorView& view, const TensorSpec& tensor,
                  int64_t first, int64_t bytes, F&& visit) {
  const ElementPlace place = PlaceOf(tensor, view, matrix.shape());
  WithStateType(matrix.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    WithElementType(view.dtype, [&]<typename W>(std::type_identity<W> type) {
      using C = std::conditional_t<std::is_same_v<T, W>, T, double>;
      const int64_t total = bytes / sizeof(W);
      const int64_t block = std::is_same_v<T, W> && place.width == 0 ? total : kBlock;
      Buffer<C> buffer;
      for (int64_t done = 0; done < total; done += block) {
        const int64_t count = std::min(block, total - done);
        visit(type, done, Gather<T, C>(matrix, place, first + done, count, buffer));
      }
    });
  });
}

template <typename W>
bool FiniteAs(double x) {
  std::array<std::byte, sizeof(W)> bytes;
  kernels::Store<W>(x, bytes.data());
  return std::isfinite(kernels::Load<W>(bytes.data()));
}

// Writes the powers of `matrix` as elements of W.
template <typename W, typename C>
void PowerBlock(const kernels::PowerSpec& spec, std::span<const C> matrix, std::byte* out) {
  const int64_t count = matrix.size();
  if constexpr (std::is_same_v<C, W>) {
    kernels::Power<C>(spec, matrix.data(), count, out);
  } else {
    Buffer<C> powers;
    kernels::Power<C>(spec, matrix.data(), count, BytesOf(powers.data()));
    for (int64_t k = 0; k < count; ++k) kernels::Store<W>(powers[k], out + k * sizeof(W));
  }
}

// The same, times x, which like `out` is of type W. Returns which product is the first that is not
// finite, or their number.
template <typename W, typename C>
int64_t MultiplyBlock(const kernels::PowerSpec& spec, std::span<const C> matrix, const std::byte* x,
                      std::byte* out) {
  const int64_t count = matrix.size();
  C largest;
  if constexpr (std::is_same_v<C, W>) {
    kernels::PowerMultiply<C>(spec, matrix.data(), x, count, out, largest);
  } else {
    Buffer<C> products = {};
    for (int64_t k = 0; k < count; ++k) products[k] = kernels::Load<W>(x + k * sizeof(W));
    std::byte* const bytes = BytesOf(products.data());
    kernels::PowerMultiply<C>(spec, matrix.data(), bytes, count, bytes, largest);
    for (int64_t k = 0; k < count; ++k) kernels::Store<W>(products[k], out + k * sizeof(W));
  }
  if (FiniteAs<W>(largest)) return count;
  int64_t bad = 0;
  while (bad < count && std::isfinite(kernels::Load<W>(out + bad * sizeof(W)))) ++bad;
  return bad;
}

absl::StatusOr<kernels::Summary> SummaryOf(const CovarianceView& covariance) {
  const Matrix& matrix = *covariance.matrix;
  if (matrix.device() != nullptr) return matrix.device()->Summarize(covariance.divisor);
  return WithStateType(matrix.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    return kernels::Summarize<T>(matrix.elements<T>().data(), matrix.shape().size(),
                                 covariance.divisor);
  });
}

// Bytes first … of a matrix, wherever it is.
absl::Status Fetch(const Matrix& matrix, int64_t first, std::span<std::byte> to) {
  if (matrix.device() != nullptr) return matrix.device()->Download(first, to);
  std::ranges::copy(matrix.bytes().subspan(static_cast<size_t>(first), to.size()), to.begin());
  return absl::OkStatus();
}

// Why x times what `matrix` is the matrix's element of is not finite.
absl::Status ProductError(const kernels::PowerSpec& spec, double matrix, double x,
                          const TensorSpec& tensor, int64_t element) {
  const bool bad_x = !std::isfinite(x);
  double value = x;
  double largest;
  if (!bad_x) {
    kernels::PowerMultiply<double>(spec, &matrix, BytesOf(&x), 1, BytesOf(&value), largest);
  }
  return MakeError(
      bad_x ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kFailedPrecondition,
      bad_x ? reason::kNonFiniteInput : reason::kNonFiniteResult,
      absl::StrFormat("element %d of %s: %s is %g; expected a finite %s", element, Describe(tensor),
                      bad_x ? "x" : "the product", value, NameOf(tensor.dtype)),
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
    : covariance_(std::move(covariance)), has_bias_(has_bias) {
  spec_.divisor = covariance_.divisor;
  if (!power) return;
  spec_.powered = true;
  spec_.exponent = power->exponent;
  spec_.damping = power->damping;
}

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

bool LinearOperatorDiag::AllFinite(DataType dtype, double least, double most) const {
  // Elements lie between those of the extremes, but for rounding.
  const double safe = 0.99 * MaxOf(dtype);
  std::array<double, 2> extremes = {least, most};
  kernels::PowerSpec spec = spec_;
  spec.divisor = 1;
  kernels::Power<double>(spec, extremes.data(), extremes.size(), BytesOf(extremes.data()));
  return std::isfinite(most + spec.damping) && extremes[0] <= safe && extremes[1] <= safe;
}

ElementsSpec LinearOperatorDiag::SpecOf(const TensorView& view, const TensorSpec& tensor) const {
  return {.place = PlaceOf(tensor, view, covariance_.matrix->shape()),
          .power = spec_,
          .dtype = view.dtype};
}

// Block by block, as readers get them: what computes them is what is asked.
absl::StatusOr<int64_t> LinearOperatorDiag::CountNotFinite(DataType dtype) const {
  const Matrix& matrix = *covariance_.matrix;
  const int64_t block = matrix.device() == nullptr ? kBlock : kDeviceBlock;
  const DataType own = matrix.shape().dtype;
  std::vector<std::byte> served(static_cast<size_t>(block * SizeOf(dtype)));
  std::vector<std::byte> values(static_cast<size_t>(block * SizeOf(own)));
  int64_t not_finite = 0;
  for (int64_t first = 0; first < dimension(); first += block) {
    const int64_t count = std::min(block, dimension() - first);
    const auto out = std::span(served).first(static_cast<size_t>(count * SizeOf(dtype)));
    const auto in = std::span(values).first(static_cast<size_t>(count * SizeOf(own)));
    if (auto s = Elements({.dtype = dtype}, 0, first, out); !s.ok()) return s;
    if (auto s = Fetch(matrix, first * SizeOf(own), in); !s.ok()) return s;
    WithStateType(own, [&]<typename T>(std::type_identity<T>) {
      WithElementType(dtype, [&]<typename W>(std::type_identity<W>) {
        for (int64_t k = 0; k < count; ++k) {
          // An infinite base may have a finite power, which would be that of no number.
          const double v = kernels::Load<T>(in.data() + k * static_cast<int64_t>(sizeof(T)));
          not_finite +=
              !std::isfinite(v / spec_.divisor + spec_.damping) ||
              !std::isfinite(kernels::Load<W>(out.data() + k * static_cast<int64_t>(sizeof(W))));
        }
      });
    });
  }
  return not_finite;
}

absl::Status LinearOperatorDiag::CheckFinite(DataType dtype) const {
  const double most = std::min(covariance_.most, MaxOf(covariance_.matrix->shape().dtype));
  if (AllFinite(dtype, covariance_.least / spec_.divisor, most / spec_.divisor)) {
    return absl::OkStatus();
  }
  const absl::StatusOr<kernels::Summary> v = SummaryOf(covariance_);
  if (!v.ok()) return v.status();
  if (AllFinite(dtype, v->least, v->most)) return absl::OkStatus();
  const absl::StatusOr<int64_t> not_finite = CountNotFinite(dtype);
  if (!not_finite.ok()) return not_finite.status();
  if (*not_finite == 0) return absl::OkStatus();
  const std::string what = spec_.powered
                               ? absl::StrFormat("(v + %g)^%g", spec_.damping, spec_.exponent)
                               : "the covariance v";
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
      absl::StrFormat(
          "%s is not a finite %s in %d of %d entries; the smallest v is %g; expected %s", what,
          NameOf(dtype), *not_finite, dimension(), v->least,
          spec_.powered ? "another damping or exponent, or a wider dtype" : "a wider dtype"),
      {{"entries", absl::StrCat(*not_finite)}, {"smallest_value", absl::StrCat(v->least)}});
}

absl::Status LinearOperatorDiag::Elements(const TensorView& view, int tensor, int64_t first,
                                          std::span<std::byte> out) const {
  const TensorSpec spec = Tensors(view)[tensor];
  if (const DeviceElements* device = covariance_.matrix->device()) {
    return device->Power(SpecOf(view, spec), first, out);
  }
  ForEachBlock(*covariance_.matrix, view, spec, first, out.size(),
               [&]<typename W, typename C>(std::type_identity<W>, int64_t done,
                                           std::span<const C> elements) {
                 PowerBlock<W>(spec_, elements, out.data() + done * sizeof(W));
               });
  return absl::OkStatus();
}

absl::Status LinearOperatorDiag::Multiply(const TensorView& view, int tensor, int64_t first,
                                          std::span<const std::byte> x,
                                          std::span<std::byte> out) const {
  const TensorSpec spec = Tensors(view)[tensor];
  if (covariance_.matrix->device() != nullptr) {
    return MultiplyOnDevice(SpecOf(view, spec), spec, first, x, out);
  }
  absl::Status status;
  const auto multiply = [&]<typename W, typename C>(std::type_identity<W>, int64_t done,
                                                    std::span<const C> elements) {
    if (!status.ok()) return;
    const std::byte* factors = x.data() + done * sizeof(W);
    std::byte* products = out.data() + done * sizeof(W);
    const size_t bad = MultiplyBlock<W>(spec_, elements, factors, products);
    if (bad == elements.size()) return;
    const double factor = kernels::Load<W>(factors + bad * sizeof(W));
    status = ProductError(spec_, elements[bad], factor, spec, first + done + bad);
  };
  ForEachBlock(*covariance_.matrix, view, spec, first, out.size(), multiply);
  return status;
}

absl::Status LinearOperatorDiag::MultiplyOnDevice(const ElementsSpec& elements,
                                                  const TensorSpec& tensor, int64_t first,
                                                  std::span<const std::byte> x,
                                                  std::span<std::byte> out) const {
  const Matrix& matrix = *covariance_.matrix;
  const auto bad = matrix.device()->PowerMultiply(elements, first, x, out);
  if (!bad.ok()) return bad.status();
  const int64_t size = SizeOf(elements.dtype);
  if (*bad == static_cast<int64_t>(x.size()) / size) return absl::OkStatus();
  const DataType own = matrix.shape().dtype;
  std::array<std::byte, sizeof(double)> bytes;
  const auto element = std::span(bytes).first(static_cast<size_t>(SizeOf(own)));
  const int64_t index = IndexOf(elements.place, matrix.shape(), first + *bad);
  if (auto s = Fetch(matrix, index * SizeOf(own), element); !s.ok()) return s;
  const double value = WithStateType(own, [&]<typename T>(std::type_identity<T>) {
    return static_cast<double>(kernels::Load<T>(bytes.data()));
  });
  const double factor = WithElementType(elements.dtype, [&]<typename W>(std::type_identity<W>) {
    return static_cast<double>(kernels::Load<W>(x.data() + *bad * size));
  });
  return ProductError(spec_, value, factor, tensor, first + *bad);
}

absl::Status LinearOperatorDiag::Materialize(Matrix& out) const {
  if (const DeviceElements* device = covariance_.matrix->device()) {
    return device->Materialize(spec_, *out.device());
  }
  return WithStateType(out.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    return Elements({.dtype = out.shape().dtype}, 0, 0, std::as_writable_bytes(out.elements<T>()));
  });
}

}  // namespace fisherd::core
