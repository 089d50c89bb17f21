#include <algorithm>

#include "core/cuda/accumulate.h"
#include "core/cuda/elements.cuh"

namespace fisherd::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AccumulateKernel(double decay, const Terms<T> terms, int64_t count, const T* from, T* to,
                     uint64_t* largest) {
  uint64_t most = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kThreads) {
    double sum = decay == 0 ? 0 : __dmul_rn(decay, static_cast<double>(from[i]));
    for (int k = 0; k < terms.count; ++k) {
      sum = __fma_rn(terms.weight[k], static_cast<double>(terms.elements[k][i]), sum);
    }
    const T value = static_cast<T>(sum);
    to[i] = value;
    most = max(most, Bits(value));
  }
  RaiseTo(largest, most);
}

}  // namespace

template <typename T>
cudaError_t Accumulate(double decay, const Terms<T>& terms, int64_t count, const T* from, T* to,
                       uint64_t* largest, cudaStream_t stream) {
  const int64_t blocks = std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, 132 * 16);
  AccumulateKernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(decay, terms, count,
                                                                           from, to, largest);
  return cudaGetLastError();
}

template cudaError_t Accumulate<float>(double, const Terms<float>&, int64_t, const float*, float*,
                                       uint64_t*, cudaStream_t);
template cudaError_t Accumulate<double>(double, const Terms<double>&, int64_t, const double*,
                                        double*, uint64_t*, cudaStream_t);

}  // namespace fisherd::cuda
