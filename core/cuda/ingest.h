// Rows as they were sent, already in device memory, to rows of squares for the product to read.
// What comes over a network is squared by the host on the one pass that brings it in; this is for
// rows that never leave the device.

#ifndef FISHERD_CORE_CUDA_INGEST_H_
#define FISHERD_CORE_CUDA_INGEST_H_

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

namespace fisherd::cuda {

enum class WireType { kFloat32, kFloat64, kBFloat16, kFloat16 };

inline constexpr int kMostSources = 16;  // of one launch; more are added by further ones

// One side of a batch: to[row, col] = weight_row · Σ_s (scale·from_s[row, col])², the sources in
// ascending order, rounded to T at each operation; `scale` is rounded to T first. Packed, as
// kernels/packed.h says; padding gets zeros.
template <typename T>
struct IngestSide {
  std::array<const void*, kMostSources> from =
      {};  // [rows, cols] each, densely, aligned to elements
  int sources = 1;
  WireType type = WireType::kFloat32;
  int64_t cols = 0;
  double scale = 1;
  bool accumulate = false;          // add to what `to` has: sources that come before
  const double* weights = nullptr;  // [rows]; null: all 1
  T* to = nullptr;                  // packed [rows, cols]
  // Where the bits of the largest square go, by atomic maximum, as unsigned: from those of infinity
  // on, something is not finite. At least 0 before.
  uint64_t* largest = nullptr;
};

// Both sides of a batch in one launch; the one in panels of kLeftPanelLines, the other of
// kRightPanelLines. T is float or double. The tensors are read once.
template <typename T>
cudaError_t Ingest(const IngestSide<T>& left, const IngestSide<T>& right, int64_t rows,
                   cudaStream_t stream);

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_INGEST_H_
