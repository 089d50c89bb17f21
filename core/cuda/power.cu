#include <algorithm>

#include "core/cuda/elements.cuh"
#include "core/cuda/power.h"
#include "core/cuda/power_of.cuh"

namespace fisherd::cuda {
namespace {

constexpr int kThreads = 256;

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
  const bool multiplied = job.x != nullptr;
  const auto base_of = [&](T v) { return fma(job.scale, static_cast<double>(v), job.damping); };
  const auto finish = [&](T power, T x) {
    const T value = multiplied ? Multiply(power, x) : power;
    largest = max(largest, Bits(value));
    return value;
  };
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * kThreads;
  const auto addresses = reinterpret_cast<uintptr_t>(job.v) | reinterpret_cast<uintptr_t>(job.to) |
                         reinterpret_cast<uintptr_t>(job.x);
  const int64_t units = addresses % 16 == 0 ? job.count / U::kSize : 0;
  for (int64_t k = thread; k < units; k += threads) {
    const U v = reinterpret_cast<const U*>(job.v)[k];
    U x = {};
    if (multiplied) x = reinterpret_cast<const U*>(job.x)[k];
    // One branch for all of them, so that they are computed side by side.
    U to;
    bool quick = true;
#pragma unroll
    for (int i = 0; i < U::kSize; ++i) {
      quick &= TryPower<T>(kExponent, base_of(v.element[i]), job.exponent, to.element[i]);
    }
    if (!quick) {
#pragma unroll
      for (int i = 0; i < U::kSize; ++i) {
        to.element[i] = PowerOf<T>(kExponent, base_of(v.element[i]), job.exponent);
      }
    }
#pragma unroll
    for (int i = 0; i < U::kSize; ++i) to.element[i] = finish(to.element[i], x.element[i]);
    reinterpret_cast<U*>(job.to)[k] = to;
  }
  for (int64_t k = units * U::kSize + thread; k < job.count; k += threads) {
    job.to[k] = finish(PowerOf<T>(kExponent, base_of(job.v[k]), job.exponent),
                       multiplied ? job.x[k] : T{0});
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
  switch (ExponentOf(exponent)) {
    case Exponent::kMinusOne:
      return Launch<Exponent::kMinusOne>(job, stream);
    case Exponent::kMinusHalf:
      return Launch<Exponent::kMinusHalf>(job, stream);
    case Exponent::kHalf:
      return Launch<Exponent::kHalf>(job, stream);
    case Exponent::kOne:
      return Launch<Exponent::kOne>(job, stream);
    case Exponent::kTwo:
      return Launch<Exponent::kTwo>(job, stream);
    case Exponent::kAny:
      break;
  }
  return Launch<Exponent::kAny>(job, stream);
}

template cudaError_t Power<float>(const float*, const float*, int64_t, double, double, double,
                                  float*, uint64_t*, cudaStream_t);
template cudaError_t Power<double>(const double*, const double*, int64_t, double, double, double,
                                   double*, uint64_t*, cudaStream_t);

}  // namespace fisherd::cuda
