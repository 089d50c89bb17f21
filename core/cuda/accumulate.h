// Adds ready-made matrices to a moving average, on a GPU.

#ifndef FISHERD_CORE_CUDA_ACCUMULATE_H_
#define FISHERD_CORE_CUDA_ACCUMULATE_H_

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

namespace fisherd::cuda {

inline constexpr int kMostTerms = 16;  // of one launch

template <typename T>
struct Terms {
  std::array<const T*, kMostTerms> elements = {};
  std::array<double, kMostTerms> weight = {};
  int count = 0;
};

// to[i] = decay·from[i] + Σ_k weight_k·term_k[i] for i < count: terms ascending, multiply-adds in
// 64 bits, rounded once to T. `to` may be `from`. Raises *largest to the bits of the largest
// element written (see IngestSide), if it is given. T is float or double.
template <typename T>
cudaError_t Accumulate(double decay, const Terms<T>& terms, int64_t count, const T* from, T* to,
                       uint64_t* largest, cudaStream_t stream);

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ACCUMULATE_H_
