#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "core/cuda/elements.cuh"
#include "core/cuda/ingest.h"
#include "core/cuda/packed.cuh"

namespace fisherd::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Sides {
  IngestSide<T> side[2];
  int64_t rows;
};

template <typename T, typename Wire>
__device__ T Load(const void* from, int64_t index) {
  const Wire element = static_cast<const Wire*>(from)[index];
  if constexpr (sizeof(Wire) == 2) {
    return static_cast<T>(static_cast<float>(element));
  } else {
    return static_cast<T>(element);  // a double to float rounds once
  }
}

// Four elements of one row; `whole`: they are 16-byte (or wider) units of every tensor.
template <typename T, typename Wire>
__device__ void AddSquares(const IngestSide<T>& side, int64_t first, int count, T (&sum)[4]) {
  const bool scaled = side.scale != 1;
  for (int source = 0; source < side.sources; ++source) {
    T value[4] = {};
    const auto* const from = static_cast<const Wire*>(side.from[source]) + first;
    if (count == 4 && reinterpret_cast<uintptr_t>(from) % (4 * sizeof(Wire)) == 0) {
      struct alignas(4 * sizeof(Wire) > 16 ? 16 : 4 * sizeof(Wire)) Four {
        Wire element[4];
      };
      const Four four = *reinterpret_cast<const Four*>(from);
      for (int i = 0; i < 4; ++i) value[i] = Load<T, Wire>(four.element, i);
    } else {
      for (int i = 0; i < count; ++i) value[i] = Load<T, Wire>(from, i);
    }
    for (int i = 0; i < 4; ++i) {
      // A value that is finite as it was sent and not in T has a square that is not finite either.
      const T scaled_value = scaled ? Multiply(static_cast<T>(side.scale), value[i]) : value[i];
      sum[i] = Add(sum[i], Multiply(scaled_value, scaled_value));
    }
  }
}

// Index: of all units of four elements; dividing 64 bits takes longer than all else.
template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) IngestKernel(const Sides<T> sides) {
  const IngestSide<T>& side = sides.side[blockIdx.y];
  // The lines' padding, too, is written.
  const auto fours = static_cast<Index>(PaddedCols<T>(side.cols) / 4);
  const kernels::PackedShape shape{
      sides.rows, side.cols,
      blockIdx.y == 0 ? kernels::kLeftPanelLines : kernels::kRightPanelLines};
  const auto units = static_cast<Index>(sides.rows * fours);
  uint64_t largest = 0;
  for (Index k = Index{blockIdx.x} * kThreads + threadIdx.x; k < units;
       k += Index{gridDim.x} * kThreads) {
    const int64_t row = k / fours;
    const int64_t col = static_cast<int64_t>(k % fours) * 4;
    const int count = static_cast<int>(max(min(side.cols - col, int64_t{4}), int64_t{0}));
    T* const to = side.to + kernels::PackedIndex<T>(shape, row, col);
    T sum[4] = {};
    if (side.accumulate) {
      for (int i = 0; i < count; ++i) sum[i] = to[i];
    }
    const int64_t first = row * side.cols + col;
    switch (side.type) {
      case WireType::kFloat32:
        AddSquares<T, float>(side, first, count, sum);
        break;
      case WireType::kFloat64:
        AddSquares<T, double>(side, first, count, sum);
        break;
      case WireType::kBFloat16:
        AddSquares<T, __nv_bfloat16>(side, first, count, sum);
        break;
      case WireType::kFloat16:
        AddSquares<T, __half>(side, first, count, sum);
        break;
    }
    for (int i = 0; i < 4; ++i) {
      if (side.weights != nullptr) sum[i] = static_cast<T>(side.weights[row] * sum[i]);
      largest = max(largest, Bits(sum[i]));
    }
    StoreFour(to, sum);
  }
  RaiseTo(side.largest, largest);
}

}  // namespace

template <typename T>
cudaError_t Ingest(const IngestSide<T>& left, const IngestSide<T>& right, int64_t rows,
                   cudaStream_t stream) {
  const int64_t units = rows * PaddedCols<T>(std::max(left.cols, right.cols)) / 4;
  const int64_t blocks = std::clamp<int64_t>((units + kThreads - 1) / kThreads, 1, 132 * 16);
  const bool narrow = units < int64_t{1} << 31;  // and so is the sum of an index and a stride
  const auto kernel = narrow ? IngestKernel<T, uint32_t> : IngestKernel<T, uint64_t>;
  kernel<<<dim3(static_cast<unsigned>(blocks), 2), kThreads, 0, stream>>>({{left, right}, rows});
  return cudaGetLastError();
}

template cudaError_t Ingest<float>(const IngestSide<float>&, const IngestSide<float>&, int64_t,
                                   cudaStream_t);
template cudaError_t Ingest<double>(const IngestSide<double>&, const IngestSide<double>&, int64_t,
                                    cudaStream_t);

}  // namespace fisherd::cuda
