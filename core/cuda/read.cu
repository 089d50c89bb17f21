#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include <algorithm>
#include <type_traits>

#include "core/cuda/power_of.cuh"
#include "core/cuda/read.h"

namespace fisherd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 132 * 16;

// Rounded once.
template <typename W>
__device__ W Rounded(double value) {
  if constexpr (std::is_same_v<W, __half>) {
    return __double2half(value);
  } else if constexpr (std::is_same_v<W, __nv_bfloat16>) {
    return __double2bfloat16(value);
  } else {
    return static_cast<W>(value);
  }
}
template <typename W>
__device__ double AsDouble(W value) {
  if constexpr (sizeof(W) == 2) {
    return static_cast<float>(value);
  } else {
    return value;
  }
}

template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) ReadKernel(const ReadElements<T> job, Exponent kind) {
  using C = std::conditional_t<std::is_same_v<T, W>, T, double>;
  for (int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x; k < job.count;
       k += int64_t{gridDim.x} * kThreads) {
    const int64_t element = job.first + k;
    const int64_t at = job.width == 0
                           ? job.offset + element
                           : job.offset + element % job.width * job.cols + element / job.width;
    const double base = fma(job.scale, static_cast<double>(job.matrix[at]), job.damping);
    C value = PowerOf<C>(kind, base, job.exponent);
    if (job.x != nullptr) {
      value = Multiply(value, static_cast<C>(AsDouble(static_cast<const W*>(job.x)[k])));
    }
    const W served = Rounded<W>(value);
    static_cast<W*>(job.to)[k] = served;
    if (job.first_bad != nullptr && !isfinite(AsDouble(served))) {
      atomicMin(reinterpret_cast<unsigned long long*>(job.first_bad),
                static_cast<unsigned long long>(k));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SummaryKernel(const T* matrix, int64_t count, double scale, PartialSummary* parts) {
  __shared__ PartialSummary warps[kThreads / 32];
  PartialSummary own{CUDART_INF, -CUDART_INF, 0};
  for (int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x; k < count;
       k += int64_t{gridDim.x} * kThreads) {
    const double value = scale * static_cast<double>(matrix[k]);
    own.least = fmin(own.least, value);
    own.most = fmax(own.most, value);
    own.sum += value;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    own.least = fmin(own.least, __shfl_xor_sync(0xffffffffu, own.least, distance));
    own.most = fmax(own.most, __shfl_xor_sync(0xffffffffu, own.most, distance));
    own.sum += __shfl_xor_sync(0xffffffffu, own.sum, distance);
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) {
    own.least = fmin(own.least, warps[warp].least);
    own.most = fmax(own.most, warps[warp].most);
    own.sum += warps[warp].sum;
  }
  parts[blockIdx.x] = own;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) FillKernel(T value, int64_t count, T* to) {
  for (int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x; k < count;
       k += int64_t{gridDim.x} * kThreads) {
    to[k] = value;
  }
}

unsigned BlocksFor(int64_t count) {
  return static_cast<unsigned>(std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, kBlocks));
}

}  // namespace

template <typename T>
cudaError_t Read(const ReadElements<T>& job, cudaStream_t stream) {
  auto kernel = ReadKernel<T, float>;
  switch (job.type) {
    case WireType::kFloat32:
      break;
    case WireType::kFloat64:
      kernel = ReadKernel<T, double>;
      break;
    case WireType::kBFloat16:
      kernel = ReadKernel<T, __nv_bfloat16>;
      break;
    case WireType::kFloat16:
      kernel = ReadKernel<T, __half>;
      break;
  }
  kernel<<<BlocksFor(job.count), kThreads, 0, stream>>>(job, ExponentOf(job.exponent));
  return cudaGetLastError();
}

template <typename T>
cudaError_t Summarize(const T* matrix, int64_t count, double scale, PartialSummary* parts,
                      cudaStream_t stream) {
  SummaryKernel<<<kSummaryParts, kThreads, 0, stream>>>(matrix, count, scale, parts);
  return cudaGetLastError();
}

template <typename T>
cudaError_t Fill(double value, int64_t count, T* to, cudaStream_t stream) {
  FillKernel<<<BlocksFor(count), kThreads, 0, stream>>>(static_cast<T>(value), count, to);
  return cudaGetLastError();
}

template cudaError_t Read<float>(const ReadElements<float>&, cudaStream_t);
template cudaError_t Read<double>(const ReadElements<double>&, cudaStream_t);
template cudaError_t Summarize<float>(const float*, int64_t, double, PartialSummary*, cudaStream_t);
template cudaError_t Summarize<double>(const double*, int64_t, double, PartialSummary*,
                                       cudaStream_t);
template cudaError_t Fill<float>(double, int64_t, float*, cudaStream_t);
template cudaError_t Fill<double>(double, int64_t, double*, cudaStream_t);

}  // namespace fisherd::cuda
