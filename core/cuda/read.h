// Reads on a GPU as a caller wants them: any part of a matrix, in any type, transposed or not; and
// what a pass over a matrix sees of it.

#ifndef FISHERD_CORE_CUDA_READ_H_
#define FISHERD_CORE_CUDA_READ_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/ingest.h"

namespace fisherd::cuda {

// Elements first … first + count of a tensor that lies in a row-major matrix of `cols` columns from
// `offset` on: row by row, or, where width > 0, transposed, `width` elements of one column after
// those of the column before.
template <typename T>
struct ReadElements {
  const T* matrix = nullptr;
  int64_t cols = 0;
  int64_t offset = 0;
  int64_t width = 0;
  int64_t first = 0;
  int64_t count = 0;
  // (scale·v + damping)^exponent
  double scale = 1;
  double damping = 0;
  double exponent = 1;
  WireType type = WireType::kFloat32;  // of x and to
  const void* x = nullptr;             // [count], to be multiplied with; null: none
  void* to = nullptr;                  // [count]
  // Lowered to the least k < count of which what is written is not finite, if it is given.
  uint64_t* first_bad = nullptr;
};

// Computed in T if that is the type, else in double and rounded once. To the accuracy of Power. T
// is float or double.
template <typename T>
cudaError_t Read(const ReadElements<T>& job, cudaStream_t stream);

// Of scale·v, of a part of a matrix.
struct PartialSummary {
  double least;
  double most;
  double sum;
};
inline constexpr int kSummaryParts = 1024;

// Writes kSummaryParts of them; those without elements have +∞, −∞ and 0.
template <typename T>
cudaError_t Summarize(const T* matrix, int64_t count, double scale, PartialSummary* parts,
                      cudaStream_t stream);

template <typename T>
cudaError_t Fill(double value, int64_t count, T* to, cudaStream_t stream);

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_READ_H_
