#include <algorithm>

#include "core/cuda/elements.cuh"
#include "core/cuda/power.h"

namespace fisherd::cuda {
namespace {

constexpr int kThreads = 256;

enum class Exponent { kMinusOne, kMinusHalf, kHalf, kOne, kTwo, kAny };

__device__ float Reciprocal(float x) { return __frcp_rn(x); }
__device__ double Reciprocal(double x) { return __drcp_rn(x); }
__device__ float Root(float x) { return __fsqrt_rn(x); }
__device__ double Root(double x) { return __dsqrt_rn(x); }
__device__ float ReciprocalRoot(float x) { return __frsqrt_rn(x); }
__device__ double ReciprocalRoot(double x) { return __drcp_rn(__dsqrt_rn(x)); }

template <Exponent kExponent, typename T>
__device__ T PowerOf(T base, double exponent) {
  if constexpr (kExponent == Exponent::kMinusOne) {
    return Reciprocal(base);
  } else if constexpr (kExponent == Exponent::kMinusHalf) {
    return ReciprocalRoot(base);
  } else if constexpr (kExponent == Exponent::kHalf) {
    return Root(base);
  } else if constexpr (kExponent == Exponent::kOne) {
    return base;
  } else if constexpr (kExponent == Exponent::kTwo) {
    return Multiply(base, base);
  } else {
    return static_cast<T>(pow(static_cast<double>(base), exponent));
  }
}

template <typename T>
struct Job {
  const T* v;
  const T* x;
  int64_t count;
  double scale;
  double damping;
  double exponent;
  T* to;
  uint64_t* largest;
};

template <typename T>
struct alignas(16) Unit {
  static constexpr int kSize = 16 / sizeof(T);
  T element[kSize];
};

template <Exponent kExponent, typename T>
__global__ void __launch_bounds__(kThreads) PowerKernel(const Job<T> job) {
  using U = Unit<T>;
  uint64_t largest = 0;
  const auto result = [&](T v, T x, bool multiplied) {
    const T base = static_cast<T>(fma(job.scale, static_cast<double>(v), job.damping));
    const T power = PowerOf<kExponent>(base, job.exponent);
    const T value = multiplied ? Multiply(power, x) : power;
    largest = max(largest, Bits(value));
    return value;
  };
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * kThreads;
  const bool multiplied = job.x != nullptr;
  const auto addresses = reinterpret_cast<uintptr_t>(job.v) | reinterpret_cast<uintptr_t>(job.to) |
                         reinterpret_cast<uintptr_t>(job.x);
  const int64_t units = addresses % 16 == 0 ? job.count / U::kSize : 0;
  for (int64_t k = thread; k < units; k += threads) {
    const U v = reinterpret_cast<const U*>(job.v)[k];
    U x = {};
    if (multiplied) x = reinterpret_cast<const U*>(job.x)[k];
    U to;
#pragma unroll
    for (int i = 0; i < U::kSize; ++i)
      to.element[i] = result(v.element[i], x.element[i], multiplied);
    reinterpret_cast<U*>(job.to)[k] = to;
  }
  for (int64_t k = units * U::kSize + thread; k < job.count; k += threads) {
    job.to[k] = result(job.v[k], multiplied ? job.x[k] : T{0}, multiplied);
  }
  RaiseTo(job.largest, largest);
}

template <Exponent kExponent, typename T>
cudaError_t Launch(const Job<T>& job, cudaStream_t stream) {
  const int64_t units = (job.count + Unit<T>::kSize - 1) / Unit<T>::kSize;
  const int64_t blocks = std::clamp<int64_t>((units + kThreads - 1) / kThreads, 1, 1 << 20);
  PowerKernel<kExponent><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t Power(const T* v, const T* x, int64_t count, double scale, double damping,
                  double exponent, T* to, uint64_t* largest, cudaStream_t stream) {
  const Job<T> job{v, x, count, scale, damping, exponent, to, largest};
  if (exponent == -1) return Launch<Exponent::kMinusOne>(job, stream);
  if (exponent == -0.5) return Launch<Exponent::kMinusHalf>(job, stream);
  if (exponent == 0.5) return Launch<Exponent::kHalf>(job, stream);
  if (exponent == 1) return Launch<Exponent::kOne>(job, stream);
  if (exponent == 2) return Launch<Exponent::kTwo>(job, stream);
  return Launch<Exponent::kAny>(job, stream);
}

template cudaError_t Power<float>(const float*, const float*, int64_t, double, double, double,
                                  float*, uint64_t*, cudaStream_t);
template cudaError_t Power<double>(const double*, const double*, int64_t, double, double, double,
                                   double*, uint64_t*, cudaStream_t);

}  // namespace fisherd::cuda
