// Few rows: the way of the state through memory is all that counts.
//
// A thread has four columns; it keeps the right side's squares of all rows in registers and goes
// down a strip of the state, whose left side lies in shared memory.

#ifndef FISHERD_CORE_CUDA_ADVANCE_FEW_CUH_
#define FISHERD_CORE_CUDA_ADVANCE_FEW_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/advance.h"
#include "core/cuda/average.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/packed.cuh"

namespace fisherd::cuda {
namespace few {

constexpr int kThreads = 128;
constexpr int kStrip = 32;  // rows of the state at most, and in a small one
constexpr int kShortStrip = 8;
constexpr int64_t kManyBlocks = 1024;
constexpr int kAhead = 8;  // of them, on their way from memory at once

// kRows: at least the rows there are. kWide: rows of the state begin at 16 bytes.
template <int kRows, bool kWide>
__global__ void __launch_bounds__(kThreads)
    AdvanceKernel(const AdvanceRows<float> job, const Average<float> average, int strip_height,
                  const float* from, float* to, uint64_t* largest) {
  __shared__ float left[kStrip][kRows];
  const int64_t height = job.left_cols + job.ones_column;
  const int64_t first = int64_t{blockIdx.y} * strip_height;
  for (int k = threadIdx.x; k < strip_height * kRows; k += kThreads) {
    const int64_t col = first + k / kRows;  // of the left side
    const int row = k % kRows;
    float value = 0;
    if (row < job.rows && col < height) {
      value = 1;
      if (col < job.left_cols) {
        const Column<float> column = LeftColumn(job.left, job.rows, job.left_cols, col);
        value = column.first[row * column.stride];
      }
    }
    left[k / kRows][row] = value;
  }
  __syncthreads();
  uint64_t most = 0;
  const int64_t col = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4;
  if (col < job.right_cols) {
    float4 right[kRows];
    const Column<float> column = RightColumn(job.right, job.rows, job.right_cols, col);
    for (int row = 0; row < kRows; ++row) {
      right[row] = {0, 0, 0, 0};
      if (row < job.rows) {
        right[row] = *reinterpret_cast<const float4*>(column.first + row * column.stride);
      }
    }
    const int strip = static_cast<int>(min(int64_t{strip_height}, height - first));
    const int count = static_cast<int>(min(int64_t{4}, job.right_cols - col));
    for (int top = 0; top < strip; top += kAhead) {
      float4 old[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (top + k >= strip) continue;
        const float* const at = from + (first + top + k) * job.right_cols + col;
        if (kWide) {
          old[k] = *reinterpret_cast<const float4*>(at);
        } else {
          old[k] = {at[0], count > 1 ? at[1] : 0, count > 2 ? at[2] : 0, count > 3 ? at[3] : 0};
        }
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (top + k >= strip) continue;
        float4 sum = {0, 0, 0, 0};
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
          const float a = left[top + k][row];
          sum.x = fmaf(a, right[row].x, sum.x);
          sum.y = fmaf(a, right[row].y, sum.y);
          sum.z = fmaf(a, right[row].z, sum.z);
          sum.w = fmaf(a, right[row].w, sum.w);
        }
        const float value[4] = {average(old[k].x, sum.x), average(old[k].y, sum.y),
                                average(old[k].z, sum.z), average(old[k].w, sum.w)};
        float* const at = to + (first + top + k) * job.right_cols + col;
        if (kWide) StoreFour(at, value);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (i >= count) continue;
          if (!kWide) at[i] = value[i];
          most = max(most, Bits(value[i]));
        }
      }
    }
  }
  RaiseTo(largest, most);
}

template <int kRows>
cudaError_t Launch(const AdvanceRows<float>& job, const float* from, float* to, uint64_t* largest,
                   cudaStream_t stream) {
  const int64_t height = job.left_cols + job.ones_column;
  const int64_t across = (job.right_cols + kThreads * 4 - 1) / (kThreads * 4);
  const int strip = across * height >= kManyBlocks * kStrip ? kStrip : kShortStrip;
  const dim3 grid(static_cast<unsigned>(across),
                  static_cast<unsigned>((height + strip - 1) / strip));
  const Average<float> average(job.decay, job.weight);
  const auto kernel =
      job.right_cols % 4 == 0 ? AdvanceKernel<kRows, true> : AdvanceKernel<kRows, false>;
  kernel<<<grid, kThreads, 0, stream>>>(job, average, strip, from, to, largest);
  return cudaGetLastError();
}

}  // namespace few

inline cudaError_t AdvanceFew(const AdvanceRows<float>& job, const float* from, float* to,
                              uint64_t* largest, cudaStream_t stream) {
  if (job.rows <= 1) return few::Launch<1>(job, from, to, largest, stream);
  if (job.rows <= 4) return few::Launch<4>(job, from, to, largest, stream);
  if (job.rows <= 8) return few::Launch<8>(job, from, to, largest, stream);
  return few::Launch<kFewRows>(job, from, to, largest, stream);
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ADVANCE_FEW_CUH_
