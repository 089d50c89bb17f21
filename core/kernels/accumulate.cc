#include "core/kernels/accumulate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/kernels/target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/accumulate.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <typename T, class D>
HWY_INLINE hn::Vec<D> ReadWide(D d, const T* from) {
  if constexpr (std::is_same_v<T, double>) {
    return hn::LoadU(d, from);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, D>(), from));
  }
}

// The lanes, rounded to T.
template <class D, typename V>
HWY_INLINE hn::Vec<D> RoundTo(D d, V x) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    return x;
  } else {
#if HWY_TARGET == HWY_SCALAR
    return hn::Set(d, static_cast<float>(hn::GetLane(x)));  // DemoteTo would keep it finite
#else
    return hn::DemoteTo(d, x);
#endif
  }
}

// One element, as a vector's lane does it.
template <typename T>
HWY_INLINE T One(double decay, std::span<const Term<T>> terms, int64_t i, const T* from) {
  const hn::CappedTag<double, 1> d;
  auto sum = hn::Set(d, decay * static_cast<double>(from[i]));
  for (const Term<T>& term : terms) {
    sum =
        hn::MulAdd(hn::Set(d, term.weight), hn::Set(d, static_cast<double>(term.elements[i])), sum);
  }
  return static_cast<T>(hn::GetLane(sum));
}

template <typename T>
T AccumulateAs(double decay, std::span<const Term<T>> terms, int64_t count, const T* from, T* to) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<T, decltype(d)> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Zero(narrow);
  auto bad = hn::Zero(narrow);  // stays zero as long as all is finite
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto sum = hn::Mul(hn::Set(d, decay), ReadWide(d, from + i));
    for (const Term<T>& term : terms) {
      sum = hn::MulAdd(hn::Set(d, term.weight), ReadWide(d, term.elements + i), sum);
    }
    const auto result = RoundTo(narrow, sum);
    hn::StoreU(result, narrow, to + i);
    largest = hn::Max(largest, result);
    bad = hn::MulAdd(result, hn::Zero(narrow), bad);
  }
  T most = hn::GetLane(hn::MaxOfLanes(narrow, largest));
  T not_finite = hn::GetLane(hn::SumOfLanes(narrow, bad));
  for (; i < count; ++i) {
    to[i] = One(decay, terms, i, from);
    most = std::max(most, to[i]);
    not_finite += to[i] * 0;
  }
  return not_finite == 0 ? most : std::numeric_limits<T>::infinity();
}

float AccumulateFloat(double decay, std::span<const Term<float>> terms, int64_t count,
                      const float* from, float* to) {
  return AccumulateAs(decay, terms, count, from, to);
}
double AccumulateDouble(double decay, std::span<const Term<double>> terms, int64_t count,
                        const double* from, double* to) {
  return AccumulateAs(decay, terms, count, from, to);
}

int64_t ThisTarget() { return HWY_TARGET; }

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {
namespace {

HWY_EXPORT(AccumulateFloat);
HWY_EXPORT(AccumulateDouble);
HWY_EXPORT(ThisTarget);

}  // namespace

template <>
float Accumulate(double decay, std::span<const Term<float>> terms, int64_t count, const float* from,
                 float* to) {
  return HWY_DYNAMIC_DISPATCH(AccumulateFloat)(decay, terms, count, from, to);
}
template <>
double Accumulate(double decay, std::span<const Term<double>> terms, int64_t count,
                  const double* from, double* to) {
  return HWY_DYNAMIC_DISPATCH(AccumulateDouble)(decay, terms, count, from, to);
}

std::string AccumulateTarget() { return TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
