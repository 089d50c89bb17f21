// Many rows: the product on tensor cores.
//
// A warp makes 32 × 32 elements, a block a tile of 128 × 128 or, of a small state, 64 × 64. Chains
// of 32 rows of both sides come into shared memory a few ahead (cp.async), row after row as they
// lie in memory: eight words of padding a row put the 32 words that a warp reads for a fragment
// into 32 banks. Each element is split into hi and lo when it is in registers.
//
// Tensor cores cut off what does not fit when they add, and all terms are positive, so that a long
// chain would be too small: 2.5e-7 of it is lost in 32 rows, in the mean. Chains are therefore
// short, and their results are added with rounding to nearest: 32 of them to a run, and the runs,
// which wait in shared memory, in order.

#ifndef FISHERD_CORE_CUDA_ADVANCE_TENSOR_CUH_
#define FISHERD_CORE_CUDA_ADVANCE_TENSOR_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "core/cuda/advance.h"
#include "core/cuda/average.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/packed.cuh"

namespace fisherd::cuda {
namespace tensor {

constexpr int kWarpTile = 32;
constexpr int kM = kWarpTile / 16;  // fragments
constexpr int kN = kWarpTile / 8;
constexpr int kRunChains = 32;
constexpr int kStages = 3;
constexpr int kBand =
    16;  // tiles of a column that blocks make one after the other: they share the right side

// What a block makes.
template <int kSize, int kBlocksPerSm>
struct Tile {
  static constexpr int kSide = kSize;
  static constexpr int kWarpsAcross = kSize / kWarpTile;
  static constexpr int kThreads = kWarpsAcross * kWarpsAcross * 32;
  static constexpr int kBlocks = kBlocksPerSm;  // to a multiprocessor
  static constexpr int kStride = kSize + 8;     // words from row to row in shared memory
  static constexpr int kSideWords = kChainRows * kStride;
  static constexpr int kStageWords = 2 * kSideWords;
  static constexpr int kRunWords = kM * kN * 4 * kThreads;
  static constexpr int kSharedBytes = (kStages * kStageWords + kRunWords) * int{sizeof(float)};
};
using LargeTile = Tile<128, 1>;
using SmallTile = Tile<64, 3>;

// 16 bytes, or zeros.
__device__ inline void CopyAsync(float* to, const float* from, bool there) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n"); }
template <int kPending>
__device__ inline void AwaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

__device__ inline void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4],
                                   const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// x = hi + lo; hi is x rounded to 11 bits, ties away from zero. The tensor core reads the first 11
// bits of lo, which has either sign: so what it cuts off has no bias. (To round lo too costs 5 %,
// and the largest errors stay.) x is not negative, and below kLargestSplit.
__device__ inline void Split(float x, uint32_t& hi, uint32_t& lo) {
  hi = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  lo = __float_as_uint(__fsub_rn(x, __uint_as_float(hi)));
}

// Brings one side's part of chains into shared memory: a thread has one unit of 16 bytes of a row,
// and goes down the rows.
template <typename Tile, int kPanelLines>
class Loader {
 public:
  // Of packed rows [rows, cols], the columns from first_col on, from row first_row on.
  __device__ Loader(const float* side, int64_t rows, int64_t cols, int64_t first_row,
                    int64_t first_col)
      : col_(threadIdx.x % kUnits * 4),
        row_(threadIdx.x / kUnits),
        there_(first_col + col_ < PaddedCols<float>(cols)) {
    const Column<float> column =
        ColumnOf<float, kPanelLines>(side, rows, cols, there_ ? first_col + col_ : 0);
    stride_ = column.stride;
    from_ = there_ ? column.first + (first_row + row_) * stride_ : side;
  }

  // Of `rows` rows from the next chain's first on.
  __device__ void Load(int64_t rows, float* to) {
    to += row_ * Tile::kStride + col_;
    const float* from = from_;
    const int64_t step = there_ ? kRowsAtOnce * stride_ : 0;
#pragma unroll
    for (int k = 0; k < kChainRows; k += kRowsAtOnce) {
      CopyAsync(to + k * Tile::kStride, from, there_ && row_ + k < rows);
      if (row_ + k + kRowsAtOnce < rows) from += step;  // never beyond the side
    }
    if (there_) from_ += kChainRows * stride_;
  }

 private:
  static constexpr int kUnits = Tile::kSide / 4;
  static constexpr int kRowsAtOnce = Tile::kThreads / kUnits;
  const int col_;
  const int row_;
  const bool there_;
  int64_t stride_;
  const float* from_;
};

// The sums of one chain, from shared memory.
template <typename Tile, Precision kPrecision>
__device__ inline void MultiplyChain(const float* left, const float* right,
                                     float (&sum)[kM][kN][4]) {
  constexpr int kStride = Tile::kStride;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < kChainRows; k += 8) {
    uint32_t a_hi[kM][4], a_lo[kM][4], b_hi[kN][2], b_lo[kN][2];
    const float* const a = left + k * kStride;
    const float* const b = right + k * kStride;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Split(a[(i / 2) * 4 * kStride + m * 16 + (i % 2) * 8], a_hi[m][i], a_lo[m][i]);
      }
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) Split(b[i * 4 * kStride + n * 8], b_hi[n][i], b_lo[n][i]);
    }
    if constexpr (kPrecision == Precision::kFloat32) {
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int n = 0; n < kN; ++n) MultiplyAdd(sum[m][n], a_lo[m], b_hi[n]);
      }
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int n = 0; n < kN; ++n) MultiplyAdd(sum[m][n], a_hi[m], b_lo[n]);
      }
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) MultiplyAdd(sum[m][n], a_hi[m], b_hi[n]);
    }
  }
}

// A thread's elements: i of fragment (m, n).
template <typename Work>
__device__ inline void ForElements(Work work) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) work(m, n, i);
    }
  }
}

// Where a block's tile is. Blocks go down bands of tiles: they share the right side in the cache.
struct Place {
  int64_t row, col;
};
template <typename Tile>
__device__ inline Place PlaceOf(int64_t block, int64_t height, int64_t width) {
  const int64_t down = (height + Tile::kSide - 1) / Tile::kSide;
  const int64_t across = (width + Tile::kSide - 1) / Tile::kSide;
  const int64_t band = block / (kBand * across) * kBand;
  const int64_t tiles = min(int64_t{kBand}, down - band);
  const int64_t within = block - band * across;
  return {(band + within % tiles) * Tile::kSide, within / tiles * Tile::kSide};
}

// A thread's elements to where at() says, if they are there().
template <typename At, typename There>
__device__ inline void StoreTile(const float (&value)[kM][kN][4], bool pairs, At at, There there,
                                 float* to) {
  ForElements([&](int m, int n, int i) {
    if (!there(m, n, i) || (pairs && i % 2 == 1)) return;
    if (pairs) {
      *reinterpret_cast<float2*>(to + at(m, n, i)) = {value[m][n][i], value[m][n][i | 1]};
    } else {
      to[at(m, n, i)] = value[m][n][i];
    }
  });
}

// Block y of gridDim.y has the chains of its part of the rows. If there are several parts, what
// each has summed goes to parts[y], [left_cols, right_cols], for AddParts; else into the state.
template <typename Tile, Precision kPrecision>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    AdvanceKernel(const AdvanceRows<float> job, const Average<float> average, float* parts,
                  const float* from, float* to, uint64_t* largest) {
  extern __shared__ float shared[];
  const Place place = PlaceOf<Tile>(blockIdx.x, job.left_cols, job.right_cols);
  const int64_t all_chains = (job.rows + kChainRows - 1) / kChainRows;
  const int64_t first_chain = all_chains * blockIdx.y / gridDim.y;
  const int64_t chains = all_chains * (blockIdx.y + 1) / gridDim.y - first_chain;
  const int64_t first_row = first_chain * kChainRows;
  Loader<Tile, kernels::kLeftPanelLines> left(job.left, job.rows, job.left_cols, first_row,
                                              place.row);
  Loader<Tile, kernels::kRightPanelLines> right(job.right, job.rows, job.right_cols, first_row,
                                                place.col);
  const auto load = [&](int64_t chain) {
    if (chain < chains) {
      float* const stage = shared + chain % kStages * Tile::kStageWords;
      const int64_t rows = job.rows - first_row - chain * kChainRows;
      left.Load(rows, stage);
      right.Load(rows, stage + Tile::kSideWords);
    }
    CommitCopies();
  };
  for (int64_t chain = 0; chain < kStages - 1; ++chain) load(chain);

  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int warp_row = warp / Tile::kWarpsAcross * kWarpTile;
  const int warp_col = warp % Tile::kWarpsAcross * kWarpTile;
  const int fragment = lane % 4 * Tile::kStride + lane / 4;
  float* const runs = shared + kStages * Tile::kStageWords + threadIdx.x;
  const auto run_at = [&](int m, int n, int i) -> float& {
    return runs[((m * kN + n) * 4 + i) * Tile::kThreads];
  };
  float total[kM][kN][4] = {};
  for (int64_t chain = 0; chain < chains; ++chain) {
    AwaitCopies<kStages - 2>();
    __syncthreads();
    load(chain + kStages - 1);
    const float* const stage = shared + chain % kStages * Tile::kStageWords + fragment;
    float sum[kM][kN][4];
    MultiplyChain<Tile, kPrecision>(stage + warp_row, stage + Tile::kSideWords + warp_col, sum);
    ForElements(
        [&](int m, int n, int i) { total[m][n][i] = __fadd_rn(total[m][n][i], sum[m][n][i]); });
    if ((chain + 1) % kRunChains == 0) {
      const bool begins = chain + 1 == kRunChains;
      ForElements([&](int m, int n, int i) {
        run_at(m, n, i) = begins ? total[m][n][i] : __fadd_rn(run_at(m, n, i), total[m][n][i]);
        total[m][n][i] = 0;
      });
    }
  }
  AwaitCopies<0>();
  if (chains >= kRunChains) {
    ForElements(
        [&](int m, int n, int i) { total[m][n][i] = __fadd_rn(run_at(m, n, i), total[m][n][i]); });
  }

  uint64_t most = 0;
  const bool in_parts = gridDim.y > 1;
  float* const out = in_parts ? parts + blockIdx.y * job.left_cols * job.right_cols : to;
  const int64_t row = place.row + warp_row + lane / 4;
  const int64_t col = place.col + warp_col + lane % 4 * 2;
  // Of element i of a fragment: one of two rows, one of two columns.
  const auto at = [&](int m, int n, int i) {
    return (row + m * 16 + i / 2 * 8) * job.right_cols + col + n * 8 + i % 2;
  };
  const auto there = [&](int m, int n, int i) {
    return row + m * 16 + i / 2 * 8 < job.left_cols && col + n * 8 + i % 2 < job.right_cols;
  };
  if (!in_parts) {
    // All are on their way before the first is written: `to` may be `from`, which the compiler has
    // to think of.
    float old[kM][kN][4];
    const bool pairs = job.right_cols % 2 == 0;
    ForElements([&](int m, int n, int i) {
      if (i % 2 == 1 && pairs) return;
      old[m][n][i] = 0;
      if (!there(m, n, i)) return;
      if (pairs) {
        const float2 two = *reinterpret_cast<const float2*>(from + at(m, n, i));
        old[m][n][i] = two.x;
        old[m][n][i | 1] = two.y;
      } else {
        old[m][n][i] = from[at(m, n, i)];
      }
    });
    ForElements([&](int m, int n, int i) {
      if (!there(m, n, i)) return;
      total[m][n][i] = average(old[m][n][i], total[m][n][i]);
      most = max(most, Bits(total[m][n][i]));
    });
  }
  StoreTile(total, job.right_cols % 2 == 0, at, there, out);
  RaiseTo(largest, most);
}

// The parts' sums, added in order, and the average.
__global__ void __launch_bounds__(256)
    AddParts(const float* parts, int count, int64_t size, const Average<float> average,
             const float* from, float* to, uint64_t* largest) {
  const int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint64_t most = 0;
  if (at < size) {
    float sum = parts[at];
    for (int part = 1; part < count; ++part) sum = __fadd_rn(sum, parts[part * size + at]);
    to[at] = average(from[at], sum);
    most = Bits(to[at]);
  }
  RaiseTo(largest, most);
}

// The bias row: column sums of the right side, in 64 bits, in chains of the rows in between: thread
// row r of 16 adds rows r, r + 16, …; their sums are added in order.
constexpr int kSumRows = 16;
constexpr int kSumCols = 32;

__global__ void __launch_bounds__(kSumRows* kSumCols)
    BiasKernel(const AdvanceRows<float> job, const Average<float> average, const float* from,
               float* to, uint64_t* largest) {
  __shared__ double sums[kSumRows][kSumCols];
  const int x = threadIdx.x % kSumCols;
  const int y = threadIdx.x / kSumCols;
  const int64_t col = int64_t{blockIdx.x} * kSumCols + x;
  double sum = 0;
  if (col < job.right_cols) {
    const Column<float> column = RightColumn(job.right, job.rows, job.right_cols, col);
#pragma unroll 8
    for (int64_t row = y; row < job.rows; row += kSumRows) {
      sum += column.first[row * column.stride];
    }
  }
  sums[y][x] = sum;
  __syncthreads();
  uint64_t most = 0;
  if (y == 0 && col < job.right_cols) {
    for (int i = 1; i < kSumRows; ++i) sum += sums[i][x];
    const int64_t at = job.left_cols * job.right_cols + col;
    to[at] = average(from[at], static_cast<float>(sum));
    most = Bits(to[at]);
  }
  RaiseTo(largest, most);
}

template <typename Tile>
int64_t TilesOf(const AdvanceRows<float>& job) {
  return ((job.left_cols + Tile::kSide - 1) / Tile::kSide) *
         ((job.right_cols + Tile::kSide - 1) / Tile::kSide);
}

template <typename Tile, Precision kPrecision>
cudaError_t Launch(const AdvanceRows<float>& job, int parts, float* scratch, const float* from,
                   float* to, uint64_t* largest, cudaStream_t stream) {
  const auto kernel = AdvanceKernel<Tile, kPrecision>;
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const Average<float> average(job.decay, job.weight);
  const dim3 grid(static_cast<unsigned>(TilesOf<Tile>(job)), static_cast<unsigned>(parts));
  kernel<<<grid, Tile::kThreads, Tile::kSharedBytes, stream>>>(job, average, scratch, from, to,
                                                               largest);
  if (parts > 1) {
    const int64_t size = job.left_cols * job.right_cols;
    AddParts<<<static_cast<unsigned>((size + 255) / 256), 256, 0, stream>>>(
        scratch, parts, size, average, from, to, largest);
  }
  if (job.ones_column) {
    const int64_t blocks = (job.right_cols + kSumCols - 1) / kSumCols;
    BiasKernel<<<static_cast<unsigned>(blocks), kSumRows * kSumCols, 0, stream>>>(
        job, average, from, to, largest);
  }
  return cudaGetLastError();
}

// Of a state of few tiles: as many parts of the rows as make blocks for a whole card, and none
// shorter than 256 rows.
constexpr int64_t kCardBlocks = 264;
constexpr int64_t kLeastPartRows = 256;
inline int PartsOf(const AdvanceRows<float>& job) {
  const int64_t wanted = kCardBlocks / TilesOf<SmallTile>(job);
  return static_cast<int>(std::clamp<int64_t>(std::min(wanted, job.rows / kLeastPartRows), 1, 64));
}

}  // namespace tensor

template <Precision kPrecision>
cudaError_t AdvanceTensor(const AdvanceRows<float>& job, float* scratch, const float* from,
                          float* to, uint64_t* largest, cudaStream_t stream) {
  // A card has 132 multiprocessors or so; shallow products have little to hide the state's way
  // behind but other blocks.
  const bool large = tensor::TilesOf<tensor::LargeTile>(job) >= 256 && job.rows >= 256;
  if (large)
    return tensor::Launch<tensor::LargeTile, kPrecision>(job, 1, nullptr, from, to, largest,
                                                         stream);
  const int parts = scratch == nullptr ? 1 : tensor::PartsOf(job);
  return tensor::Launch<tensor::SmallTile, kPrecision>(job, parts, scratch, from, to, largest,
                                                       stream);
}

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ADVANCE_TENSOR_CUH_
