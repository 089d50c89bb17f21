// What the kernels do with single elements. The compiler must not contract what is written apart:
// the CPU's kernels round there.

#ifndef FISHERD_CORE_CUDA_ELEMENTS_CUH_
#define FISHERD_CORE_CUDA_ELEMENTS_CUH_

#include <cstdint>

namespace fisherd::cuda {

__device__ inline float Multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double Multiply(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float Add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double Add(double a, double b) { return __dadd_rn(a, b); }

// Ascend with elements that are not negative; NaN, of whatever sign, is above infinity.
__device__ inline uint64_t Bits(float value) {
  return uint64_t{__float_as_uint(value) & 0x7fffffffu} << 32;
}
__device__ inline uint64_t Bits(double value) {
  return static_cast<uint64_t>(__double_as_longlong(value)) & 0x7fffffffffffffffull;
}

__device__ inline void StoreFour(float* to, const float (&from)[4]) {
  *reinterpret_cast<float4*>(to) = {from[0], from[1], from[2], from[3]};
}
__device__ inline void StoreFour(double* to, const double (&from)[4]) {
  reinterpret_cast<double2*>(to)[0] = {from[0], from[1]};
  reinterpret_cast<double2*>(to)[1] = {from[2], from[3]};
}

// *most = max(*most, the block's largest), with one atomic operation a warp. All threads call it.
__device__ inline void RaiseTo(uint64_t* most, uint64_t bits) {
  if (most == nullptr) return;
  for (int distance = 16; distance > 0; distance /= 2) {
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, distance));
  }
  if (threadIdx.x % 32 == 0 && bits > *most) {
    atomicMax(reinterpret_cast<unsigned long long*>(most), static_cast<unsigned long long>(bits));
  }
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ELEMENTS_CUH_
