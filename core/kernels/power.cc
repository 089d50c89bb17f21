#include "core/kernels/power.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "core/kernels/target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/power.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
// These too, in whatever order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Which instructions take the power.
enum class Form { kInverse, kInverseRoot, kRoot, kLinear, kSquare, kOne, kAny };

// The quick way to a base is by the divisor's reciprocal, in T. If both are between these, nothing
// on it leaves the normal numbers: each term has been rounded once (v's twice without FMA) and then
// their sum, and the powers that go this way add two roundings at most. Everything else goes the
// straight way, by division, floats in 64 bits.
template <typename T>
constexpr T kLeastBase = std::is_same_v<T, float> ? T(0x1p-100) : T(0x1p-900);
template <typename T>
constexpr T kMostBase = 1 / kLeastBase<T>;

// A PowerSpec, and what the quick way needs of it.
template <typename T>
struct Coefficients {
  explicit Coefficients(const PowerSpec& spec)
      : divisor(spec.divisor),
        damping(spec.powered ? spec.damping : 0),
        exponent(spec.powered ? spec.exponent : 1),
        reciprocal(static_cast<T>(1 / divisor)),
        rounded_damping(static_cast<T>(damping)) {}
  bool quick() const { return reciprocal >= kLeastBase<T> && reciprocal <= kMostBase<T>; }

  double divisor;
  double damping;
  double exponent;
  T reciprocal;
  T rounded_damping;
};

// What a pass reads and writes: `count` elements of T each. Without x, ones.
template <typename T>
struct Buffers {
  const T* matrix = nullptr;
  const std::byte* x = nullptr;
  std::byte* out = nullptr;
  int64_t count = 0;
};

// As many elements of T, anywhere in memory, as D has lanes.
template <typename T, class D>
HWY_INLINE hn::Vec<D> Read(D d, const void* from) {
#if HWY_TARGET == HWY_SCALAR
  T x;
  std::memcpy(&x, from, sizeof(T));
  return hn::Set(d, static_cast<hn::TFromD<D>>(x));
#else
  const auto x = hn::LoadU(hn::Rebind<T, D>(), static_cast<const T*>(from));
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    return x;
  } else {
    return hn::PromoteTo(d, x);
  }
#endif
}

// The lanes, rounded to T.
template <typename T, class D>
HWY_INLINE hn::Vec<hn::Rebind<T, D>> RoundTo(D /*d*/, hn::Vec<D> x) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    return x;
  } else {
    const hn::Rebind<T, D> to;
#if HWY_TARGET == HWY_SCALAR
    return hn::Set(to, static_cast<T>(hn::GetLane(x)));  // DemoteTo would saturate
#else
    return hn::DemoteTo(to, x);
#endif
  }
}

template <class D>
HWY_INLINE void Write([[maybe_unused]] D d, hn::Vec<D> x, std::byte* to) {
#if HWY_TARGET == HWY_SCALAR
  const auto element = hn::GetLane(x);
  std::memcpy(to, &element, sizeof(element));
#else
  hn::StoreU(x, d, reinterpret_cast<hn::TFromD<D>*>(to));
#endif
}

// u^e of 64-bit floats, by way of the logarithm.
template <class D>
HWY_INLINE hn::Vec<D> Pow(D d, hn::Vec<D> u, double exponent) {
  // Exp's domain ends near the largest double's logarithm, 710.
  const auto limit = hn::Set(d, 1000.0);
  const auto power = hn::Mul(hn::Set(d, exponent), hn::Log(d, u));
  const auto result = hn::Exp(d, hn::Max(hn::Neg(limit), hn::Min(power, limit)));
  const auto of_zero = hn::Set(d, exponent > 0 ? 0.0 : std::numeric_limits<double>::infinity());
  return hn::IfThenElse(hn::Eq(u, hn::Zero(d)), of_zero, result);
}

// (a + b)², with what rounding the sum leaves over: squared, it counts twice.
template <class V>
HWY_INLINE V SquareOfSum(V a, V b) {
  const V sum = hn::Add(a, b);
  const V b_in_sum = hn::Sub(sum, a);
  const V rest = hn::Add(hn::Sub(a, hn::Sub(sum, b_in_sum)), hn::Sub(b, b_in_sum));
  return hn::MulAdd(sum, sum, hn::Mul(hn::Add(sum, sum), rest));
}

// x·u^e.
template <Form kForm, class D>
HWY_INLINE hn::Vec<D> Raise(D d, hn::Vec<D> x, hn::Vec<D> u, [[maybe_unused]] double exponent) {
  if constexpr (kForm == Form::kInverse) {
    return hn::Div(x, u);
  } else if constexpr (kForm == Form::kInverseRoot) {
    return hn::Div(x, hn::Sqrt(u));
  } else if constexpr (kForm == Form::kRoot) {
    return hn::Mul(x, hn::Sqrt(u));
  } else if constexpr (kForm == Form::kLinear) {
    return hn::Mul(x, u);
  } else if constexpr (kForm == Form::kSquare) {
    return hn::Mul(x, hn::Mul(u, u));
  } else if constexpr (kForm == Form::kOne) {
    return x;
  } else {
    return hn::Mul(x, Pow(d, u, exponent));
  }
}

// What a pass makes of the elements that it reads.
enum class Product { kNone, kPowers, kTimesX };

// A pass over elements of T, the quick way or the straight one.
template <Form kForm, Product kProduct, typename T, bool kQuick>
class Pass {
 public:
  // `largest`, if there is x, becomes the largest magnitude written.
  static HWY_NOINLINE Summary Run(const Coefficients<T>& c, const Buffers<T>& buffers, T* largest) {
    const D d;
    const DBits d_bits;
    const int64_t lanes = hn::Lanes(d);
    auto least = hn::Set(d, std::numeric_limits<C>::infinity());
    auto most = hn::Neg(least);
    auto bits = hn::Zero(d_bits);
    double sum = 0;
    int64_t k = 0;
    while (buffers.count - k >= lanes) {
      const int64_t last = std::min(k + kBlock, buffers.count) - lanes;
      // The mean, not the sum: it never overflows.
      auto mean = hn::Zero(d);
      for (; k <= last; k += lanes) {
        const auto v = Step(c, From(buffers, k, lanes), least, most, bits);
        mean = hn::MulAdd(v, hn::Set(d, C{1} / kBlock), mean);
      }
      sum += kBlock * static_cast<double>(hn::GetLane(hn::SumOfLanes(d, mean)));
    }
    if (k < buffers.count) {
      const Buffers<T> tail = From(buffers, k, buffers.count - k);
      // Before it is overwritten, if `out` is the matrix.
      sum = std::accumulate(tail.matrix, tail.matrix + tail.count, sum);
      RunTail(c, tail, least, most, bits);
    }
    if (kProduct == Product::kTimesX) {
      const auto of_lanes = hn::MaxOfLanes(d_bits, bits);
      *largest = hn::GetLane(hn::BitCast(hn::Rebind<T, D>(), of_lanes));
    }
    return {.least = hn::GetLane(hn::MinOfLanes(d, least)) / c.divisor,
            .most = hn::GetLane(hn::MaxOfLanes(d, most)) / c.divisor,
            .sum = sum / c.divisor};
  }

 private:
  using C = std::conditional_t<kQuick, T, double>;  // what it is computed in
  using D = hn::CappedTag<C, 64 / sizeof(C)>;
  // Magnitudes are compared as integers: NaN is the largest, then infinity.
  using DBits = hn::RebindToSigned<hn::Rebind<T, D>>;
  static constexpr int64_t kMaxLanes = 64 / sizeof(C);
  static constexpr int64_t kBlock = 1024;  // elements whose sum is taken in C

  static HWY_INLINE Buffers<T> From(const Buffers<T>& buffers, int64_t first, int64_t count) {
    Buffers<T> from{.matrix = buffers.matrix + first, .count = count};
    if (kProduct == Product::kTimesX) from.x = buffers.x + first * sizeof(T);
    if (kProduct != Product::kNone) from.out = buffers.out + first * sizeof(T);
    return from;
  }

  // As many elements as there are lanes. Returns those of the matrix.
  static HWY_INLINE hn::Vec<D> Step(const Coefficients<T>& c, const Buffers<T>& at,
                                    hn::Vec<D>& least, hn::Vec<D>& most, hn::Vec<DBits>& bits) {
    const D d;
    const auto v = Read<T>(d, at.matrix);
    least = hn::Min(least, v);
    most = hn::Max(most, v);
    if constexpr (kProduct == Product::kNone) return v;
    const auto result = Result(c, v, at);
    if constexpr (kProduct == Product::kTimesX) {
      bits = hn::Max(bits, hn::BitCast(DBits(), hn::Abs(result)));
    }
    Write(hn::Rebind<T, D>(), result, at.out);
    return v;
  }

  static HWY_INLINE hn::Vec<hn::Rebind<T, D>> Result(const Coefficients<T>& c, hn::Vec<D> v,
                                                     const Buffers<T>& at) {
    const D d;
    hn::Vec<D> x = hn::Set(d, C{1});
    if constexpr (kProduct == Product::kTimesX) x = Read<T>(d, at.x);
    if constexpr (kQuick) {
      const auto u = hn::MulAdd(v, hn::Set(d, c.reciprocal), hn::Set(d, c.rounded_damping));
      const auto good =
          hn::And(hn::Ge(u, hn::Set(d, kLeastBase<T>)), hn::Le(u, hn::Set(d, kMostBase<T>)));
      const auto result = Raise<kForm>(d, x, u, c.exponent);
      if (HWY_LIKELY(hn::AllTrue(d, good))) return result;
      T ignored;
      Pass<kForm, kProduct, T, false>::Run(c, at, &ignored);
      return hn::IfThenElse(good, result, Read<T>(d, at.out));
    } else {
      const auto quotient = hn::Div(v, hn::Set(d, c.divisor));
      const auto damping = hn::Set(d, c.damping);
      if constexpr (kForm == Form::kSquare && std::is_same_v<T, double>) {
        return hn::Mul(x, SquareOfSum(quotient, damping));
      } else {
        const auto u = hn::Add(quotient, damping);
        return RoundTo<T>(d, Raise<kForm>(d, x, u, c.exponent));
      }
    }
  }

  // Fewer elements than there are lanes: by a vector beside, filled up with the last one, which
  // may well be seen again.
  static HWY_NOINLINE void RunTail(const Coefficients<T>& c, const Buffers<T>& tail,
                                   hn::Vec<D>& least, hn::Vec<D>& most, hn::Vec<DBits>& bits) {
    T matrix[kMaxLanes];
    std::byte x[kMaxLanes * sizeof(T)];
    std::byte out[kMaxLanes * sizeof(T)];
    const int64_t lanes = hn::Lanes(D());
    for (int64_t i = 0; i < lanes; ++i) {
      const int64_t from = std::min(i, tail.count - 1);
      matrix[i] = tail.matrix[from];
      if (kProduct == Product::kTimesX) {
        std::memcpy(x + i * sizeof(T), tail.x + from * sizeof(T), sizeof(T));
      }
    }
    Step(c, {.matrix = matrix, .x = x, .out = out, .count = lanes}, least, most, bits);
    if (kProduct != Product::kNone) std::memcpy(tail.out, out, tail.count * sizeof(T));
  }
};

// The quick way is for powers that divide or take a root once more; other ones are as fast by the
// straight way, or far slower in any case.
template <Form kForm, Product kProduct, typename T>
Summary RunForm(const Coefficients<T>& c, const Buffers<T>& buffers, T* largest) {
  constexpr bool kCostly =
      kForm == Form::kInverse || kForm == Form::kInverseRoot || kForm == Form::kRoot;
  if constexpr (kCostly) {
    if (c.quick()) return Pass<kForm, kProduct, T, true>::Run(c, buffers, largest);
  }
  return Pass<kForm, kProduct, T, false>::Run(c, buffers, largest);
}

template <Product kProduct, typename T>
Summary RunPower(const PowerSpec& spec, const Buffers<T>& buffers, T* largest) {
  const Coefficients<T> c(spec);
  if (c.exponent == -1) return RunForm<Form::kInverse, kProduct>(c, buffers, largest);
  if (c.exponent == -0.5) return RunForm<Form::kInverseRoot, kProduct>(c, buffers, largest);
  if (c.exponent == 0.5) return RunForm<Form::kRoot, kProduct>(c, buffers, largest);
  if (c.exponent == 1) return RunForm<Form::kLinear, kProduct>(c, buffers, largest);
  if (c.exponent == 2) return RunForm<Form::kSquare, kProduct>(c, buffers, largest);
  if (c.exponent == 0) return RunForm<Form::kOne, kProduct>(c, buffers, largest);
  return RunForm<Form::kAny, kProduct>(c, buffers, largest);
}

#define FISHERD_POWER(T)                                                                     \
  Summary Power##T(const PowerSpec& spec, const T* matrix, int64_t count, std::byte* out) {  \
    return RunPower<Product::kPowers, T>(                                                    \
        spec, {.matrix = matrix, .x = nullptr, .out = out, .count = count}, nullptr);        \
  }                                                                                          \
  Summary PowerMultiply##T(const PowerSpec& spec, const T* matrix, const std::byte* x,       \
                           int64_t count, std::byte* out, T& largest) {                      \
    return RunPower<Product::kTimesX, T>(                                                    \
        spec, {.matrix = matrix, .x = x, .out = out, .count = count}, &largest);             \
  }                                                                                          \
  Summary Summarize##T(const T* matrix, int64_t count, double divisor) {                     \
    return Pass<Form::kOne, Product::kNone, T, true>::Run(                                   \
        Coefficients<T>({.divisor = divisor}), {.matrix = matrix, .count = count}, nullptr); \
  }
FISHERD_POWER(float)
FISHERD_POWER(double)
#undef FISHERD_POWER

int64_t ThisTarget() { return HWY_TARGET; }

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {

#define FISHERD_POWER(T)                                                                    \
  HWY_EXPORT(Power##T);                                                                     \
  template <>                                                                               \
  Summary Power<T>(const PowerSpec& spec, const T* matrix, int64_t count, std::byte* out) { \
    return HWY_DYNAMIC_DISPATCH(Power##T)(spec, matrix, count, out);                        \
  }                                                                                         \
  HWY_EXPORT(PowerMultiply##T);                                                             \
  template <>                                                                               \
  Summary PowerMultiply<T>(const PowerSpec& spec, const T* matrix, const std::byte* x,      \
                           int64_t count, std::byte* out, T& largest) {                     \
    return HWY_DYNAMIC_DISPATCH(PowerMultiply##T)(spec, matrix, x, count, out, largest);    \
  }                                                                                         \
  HWY_EXPORT(Summarize##T);                                                                 \
  template <>                                                                               \
  Summary Summarize<T>(const T* matrix, int64_t count, double divisor) {                    \
    return HWY_DYNAMIC_DISPATCH(Summarize##T)(matrix, count, divisor);                      \
  }
FISHERD_POWER(float)
FISHERD_POWER(double)
#undef FISHERD_POWER

HWY_EXPORT(ThisTarget);
std::string PowerTarget() { return TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
