// Reads on a GPU: powers of a damped covariance, and their products with a tensor.

#ifndef FISHERD_CORE_CUDA_POWER_H_
#define FISHERD_CORE_CUDA_POWER_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace fisherd::cuda {

// to[k] = (scale·v[k] + damping)^exponent, times x[k] if x is given, for k < count. scale is 1 over
// the total weight. The base is rounded once; −1, −½, ½, 1 and 2 are correctly rounded from there
// (and x once more), other exponents within a relative 5e-7 (float) or pow's error (double).
// Nothing is checked: raises *largest, if it is given, to the bits of the largest magnitude written
// (see IngestSide). `to` may be v or x. T is float or double.
template <typename T>
cudaError_t Power(const T* v, const T* x, int64_t count, double scale, double damping,
                  double exponent, T* to, uint64_t* largest, cudaStream_t stream);

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_POWER_H_
