// Double: multiply-adds, in tiles of 64 × 64 elements, 4 × 4 a thread, one chain over all rows.

#ifndef FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_
#define FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/advance.h"
#include "core/cuda/average.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/ingest.h"

namespace fisherd::cuda {
namespace plain {

constexpr int kThreads = 256;  // 16 × 16
constexpr int kTile = 64;
constexpr int kDepth = 16;  // rows at a time in shared memory
constexpr int kEach = 4;    // rows and columns of a thread, 16 apart

__global__ void __launch_bounds__(kThreads)
    AdvanceKernel(const AdvanceRows<double> job, const Average<double> average, const double* from,
                  double* to, uint64_t* largest) {
  __shared__ double left[kDepth][kTile], right[kDepth][kTile];
  const int64_t height = job.left_cols + job.ones_column;
  const int64_t tile_row = int64_t{blockIdx.y} * kTile;
  const int64_t tile_col = int64_t{blockIdx.x} * kTile;
  const int64_t left_stride = PaddedCols<double>(job.left_cols);
  const int64_t right_stride = PaddedCols<double>(job.right_cols);
  const int x = threadIdx.x % 16;
  const int y = threadIdx.x / 16;
  double sum[kEach][kEach] = {};
  for (int64_t first = 0; first < job.rows; first += kDepth) {
    for (int k = threadIdx.x; k < kDepth * kTile; k += kThreads) {
      const int64_t row = first + k / kTile;
      const int64_t a = tile_row + k % kTile;
      const int64_t b = tile_col + k % kTile;
      const bool there = row < job.rows;
      left[k / kTile][k % kTile] =
          there && a < height ? (a < job.left_cols ? job.left[row * left_stride + a] : 1.0) : 0.0;
      right[k / kTile][k % kTile] =
          there && b < job.right_cols ? job.right[row * right_stride + b] : 0.0;
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

inline cudaError_t AdvancePlain(const AdvanceRows<double>& job, const double* from, double* to,
                                uint64_t* largest, cudaStream_t stream) {
  const int64_t height = job.left_cols + job.ones_column;
  const dim3 grid(static_cast<unsigned>((job.right_cols + plain::kTile - 1) / plain::kTile),
                  static_cast<unsigned>((height + plain::kTile - 1) / plain::kTile));
  plain::AdvanceKernel<<<grid, plain::kThreads, 0, stream>>>(job, {job.decay, job.weight}, from, to,
                                                             largest);
  return cudaGetLastError();
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ADVANCE_PLAIN_CUH_
