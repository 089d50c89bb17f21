// Multiply-adds, in tiles of 64 × 64 elements, 4 × 4 a thread, one chain over all rows: for double,
// and for floats that tensor cores cannot take.

#ifndef FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_
#define FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/advance.h"
#include "core/cuda/average.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/packed.cuh"

namespace fisherd::cuda {
namespace plain {

constexpr int kThreads = 256;  // 16 × 16
constexpr int kTile = 64;
constexpr int kDepth = 16;  // rows at a time in shared memory
constexpr int kEach = 4;    // rows and columns of a thread, 16 apart

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AdvanceKernel(const AdvanceRows<T> job, const Average<T> average, const T* from, T* to,
                  uint64_t* largest) {
  __shared__ T left[kDepth][kTile], right[kDepth][kTile];
  const int64_t height = job.left_cols + job.ones_column;
  const int64_t tile_row = int64_t{blockIdx.y} * kTile;
  const int64_t tile_col = int64_t{blockIdx.x} * kTile;
  // The columns that this thread brings in.
  const int64_t a = tile_row + threadIdx.x % kTile;
  const int64_t b = tile_col + threadIdx.x % kTile;
  const Column<T> from_left = LeftColumn(job.left, job.rows, job.left_cols, a);
  const Column<T> from_right = RightColumn(job.right, job.rows, job.right_cols, b);
  const int x = threadIdx.x % 16;
  const int y = threadIdx.x / 16;
  T sum[kEach][kEach] = {};
  for (int64_t first = 0; first < job.rows; first += kDepth) {
    for (int k = threadIdx.x; k < kDepth * kTile; k += kThreads) {
      const int64_t row = first + k / kTile;
      T left_value = 0, right_value = 0;
      if (row < job.rows) {
        if (a < job.left_cols) left_value = from_left.first[row * from_left.stride];
        if (a == job.left_cols && job.ones_column) left_value = 1;
        if (b < job.right_cols) right_value = from_right.first[row * from_right.stride];
      }
      left[k / kTile][k % kTile] = left_value;
      right[k / kTile][k % kTile] = right_value;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          sum[i][j] = fma(left[k][y + 16 * i], right[k][x + 16 * j], sum[i][j]);
        }
      }
    }
    __syncthreads();
  }
  uint64_t most = 0;
  for (int i = 0; i < kEach; ++i) {
    for (int j = 0; j < kEach; ++j) {
      const int64_t row = tile_row + y + 16 * i;
      const int64_t col = tile_col + x + 16 * j;
      if (row >= height || col >= job.right_cols) continue;
      const int64_t at = row * job.right_cols + col;
      to[at] = average(from[at], sum[i][j]);
      most = max(most, Bits(to[at]));
    }
  }
  RaiseTo(largest, most);
}

}  // namespace plain

template <typename T>
cudaError_t AdvancePlain(const AdvanceRows<T>& job, const T* from, T* to, uint64_t* largest,
                         cudaStream_t stream) {
  const int64_t height = job.left_cols + job.ones_column;
  const dim3 grid(static_cast<unsigned>((job.right_cols + plain::kTile - 1) / plain::kTile),
                  static_cast<unsigned>((height + plain::kTile - 1) / plain::kTile));
  plain::AdvanceKernel<T>
      <<<grid, plain::kThreads, 0, stream>>>(job, {job.decay, job.weight}, from, to, largest);
  return cudaGetLastError();
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_
