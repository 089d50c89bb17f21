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

// `base` to the power, in T, to which it is rounded first unless the power is any.
template <typename T>
__device__ inline T PowerOf(Exponent kind, double base, double exponent) {
  const T rounded = static_cast<T>(base);
  switch (kind) {
    case Exponent::kMinusOne:
      return Reciprocal(rounded);
    case Exponent::kMinusHalf:
      return ReciprocalRoot(rounded);
    case Exponent::kHalf:
      return Root(rounded);
    case Exponent::kOne:
      return rounded;
    case Exponent::kTwo:
      return Multiply(rounded, rounded);
    case Exponent::kAny:
      break;
  }
  return static_cast<T>(pow(base, exponent));
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_POWER_OF_CUH_
