#include "tests/bench/core/peak_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/core/peak_kernels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Twelve chains hide a latency of four in two units, and leave four of sixteen registers free.
// Spelt out, because sizeless vectors cannot be in arrays.
#define FISHERD_CHAINS(CHAIN) \
  CHAIN(0)                    \
  CHAIN(1)                    \
  CHAIN(2) CHAIN(3) CHAIN(4) CHAIN(5) CHAIN(6) CHAIN(7) CHAIN(8) CHAIN(9) CHAIN(10) CHAIN(11)

template <typename T>
HWY_NOINLINE double Fma(int64_t rounds) {
  using D = hn::CappedTag<T, 64 / sizeof(T)>;
  const D d;
  // Every chain tends to 1 from its own start.
  const auto factor = hn::Set(d, T{0.5});
  const auto term = hn::Set(d, T{0.5});
#define CHAIN(n) hn::Vec<D> c##n = hn::Set(d, T{n});
  FISHERD_CHAINS(CHAIN)
#undef CHAIN
  for (int64_t round = 0; round < rounds; ++round) {
#define CHAIN(n) c##n = hn::MulAdd(c##n, factor, term);
    FISHERD_CHAINS(CHAIN)
#undef CHAIN
  }
  auto sum = hn::Zero(d);
#define CHAIN(n) sum = hn::Add(sum, c##n);
  FISHERD_CHAINS(CHAIN)
#undef CHAIN
  const bool used = hn::GetLane(sum) >= T{0};
  return used ? 2.0 * 12 * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds) : 0;
}
#undef FISHERD_CHAINS

double FmaFloat(int64_t rounds) { return Fma<float>(rounds); }
double FmaDouble(int64_t rounds) { return Fma<double>(rounds); }

void Triad(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, const float* HWY_RESTRICT c,
           int64_t count) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = hn::Lanes(d);
  const auto s = hn::Set(d, 0.5f);
  for (int64_t k = 0; k < count; k += lanes) {
    hn::Store(hn::MulAdd(s, hn::Load(d, c + k), hn::Load(d, b + k)), d, a + k);
  }
}

}  // namespace fisherd::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::bench {

HWY_EXPORT(FmaFloat);
HWY_EXPORT(FmaDouble);
HWY_EXPORT(Triad);

template <>
double RunFma<float>(int64_t rounds) {
  return HWY_DYNAMIC_DISPATCH(FmaFloat)(rounds);
}
template <>
double RunFma<double>(int64_t rounds) {
  return HWY_DYNAMIC_DISPATCH(FmaDouble)(rounds);
}

void RunTriad(float* a, const float* b, const float* c, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Triad)(a, b, c, count);
}

}  // namespace fisherd::bench
#endif  // HWY_ONCE
