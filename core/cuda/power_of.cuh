// Powers of one number.

#ifndef FISHERD_CORE_CUDA_POWER_OF_CUH_
#define FISHERD_CORE_CUDA_POWER_OF_CUH_

#include "core/cuda/elements.cuh"

namespace fisherd::cuda {

enum class Exponent { kMinusOne, kMinusHalf, kHalf, kOne, kTwo, kAny };

inline Exponent ExponentOf(double exponent) {
  if (exponent == -1) return Exponent::kMinusOne;
  if (exponent == -0.5) return Exponent::kMinusHalf;
  if (exponent == 0.5) return Exponent::kHalf;
  if (exponent == 1) return Exponent::kOne;
  if (exponent == 2) return Exponent::kTwo;
  return Exponent::kAny;
}

__device__ inline float Reciprocal(float x) { return __frcp_rn(x); }
__device__ inline double Reciprocal(double x) { return __drcp_rn(x); }
__device__ inline float Root(float x) { return __fsqrt_rn(x); }
__device__ inline double Root(double x) { return __dsqrt_rn(x); }
__device__ inline float ReciprocalRoot(float x) { return __frsqrt_rn(x); }
__device__ inline double ReciprocalRoot(double x) { return __drcp_rn(__dsqrt_rn(x)); }

// 2^(exponent·log2(base)) to a relative 5e-7: the logarithm in double, because it is multiplied by
// what may be large, to a relative 2e-9 of it; the rest in float. A read must not take longer than
// memory does, and pow does.
// False, and nothing of use, unless the base is a normal positive number and so is the result.
__device__ inline bool QuickPower(double base, double exponent, float& result) {
  const int high = __double2hiint(base);
  // base = m·2^k, m from √½ to √2. The series of log m in t = (m − 1)/(m + 1), |t| < 0.172.
  const int up = (high & 0xfffff) >= 0x6a09e ? 1 : 0;
  const int k = (high >> 20) - 1023 + up;
  const double m =
      __hiloint2double((high & 0xfffff) | (up ? 0x3fe00000 : 0x3ff00000), __double2loint(base));
  double reciprocal;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(reciprocal) : "d"(m + 1));  // to 2^-20
  reciprocal = fma(reciprocal, fma(-(m + 1), reciprocal, 1.0), reciprocal);
  const double t = (m - 1) * reciprocal;
  const double square = t * t;
  constexpr double kScale = 2.8853900817779268;  // 2 / ln 2
  double series = kScale / 9;
  series = fma(series, square, kScale / 7);
  series = fma(series, square, kScale / 5);
  series = fma(series, square, kScale / 3);
  series = fma(series, square, kScale);
  // To a double without the slow instruction.
  const double k_as_double =
      __hiloint2double(0x43300000, k ^ static_cast<int>(0x80000000)) - 4503601774854144.0;
  const double power = exponent * fma(t, series, k_as_double);
  constexpr double kToInteger = 6755399441055744.0;  // its last bit is 1
  const double shifted = power + kToInteger;
  asm("ex2.approx.ftz.f32 %0, %1;"
      : "=f"(result)
      : "f"(static_cast<float>(power - (shifted - kToInteger))));
  result = __int_as_float(__float_as_int(result) + (__double2loint(shifted) << 23));
  return high >= 0x00100000 && high < 0x7ff00000 && fabs(power) < 125;
}
__device__ inline bool QuickPower(double, double, double&) { return false; }

// `base` to the power, in T, to which it is rounded first unless the power is any. False where that
// takes SlowPower.
template <typename T>
__device__ inline bool TryPower(Exponent kind, double base, double exponent, T& result) {
  const T rounded = static_cast<T>(base);
  switch (kind) {
    case Exponent::kMinusOne:
      result = Reciprocal(rounded);
      return true;
    case Exponent::kMinusHalf:
      result = ReciprocalRoot(rounded);
      return true;
    case Exponent::kHalf:
      result = Root(rounded);
      return true;
    case Exponent::kOne:
      result = rounded;
      return true;
    case Exponent::kTwo:
      result = Multiply(rounded, rounded);
      return true;
    case Exponent::kAny:
      break;
  }
  return QuickPower(base, exponent, result);
}

template <typename T>
__device__ inline T SlowPower(double base, double exponent) {
  return static_cast<T>(pow(base, exponent));
}

template <typename T>
__device__ inline T PowerOf(Exponent kind, double base, double exponent) {
  T result;
  return TryPower(kind, base, exponent, result) ? result : SlowPower<T>(base, exponent);
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_POWER_OF_CUH_
