// The step: a product of squares with the moving average around it, on a GPU.

#ifndef FISHERD_CORE_CUDA_ADVANCE_H_
#define FISHERD_CORE_CUDA_ADVANCE_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace fisherd::cuda {

// How products of float are made. On tensor cores a float is the sum of two numbers of 11 bits, hi
// and lo; products of these are exact.
enum class Precision {
  kFloat32,  // hi·hi + hi·lo + lo·hi; what is left out is below 2⁻²² of it
  kTf32,     // hi·hi: each product errs by up to 2⁻¹⁰
};

// Rows of squares, packed as kernels/packed.h says, on the way into a state [left_cols +
// ones_column, right_cols], row-major, without padding.
template <typename T>
struct AdvanceRows {
  const T* left = nullptr;   // [rows, left_cols], in panels of kLeftPanelLines
  const T* right = nullptr;  // [rows, right_cols], of kRightPanelLines
  int64_t rows = 0;
  int64_t left_cols = 0;
  int64_t right_cols = 0;
  bool ones_column = false;  // as if `left` had a last column of ones: the bias row
  double decay = 0;
  double weight = 0;  // times the rows' scale, 1/(T·N)
  Precision precision = Precision::kFloat32;
  bool splittable = true;  // all squares are below kLargestSplit
};

// to = decay·from + weight·[left 1]ᵀ·right; `to` may be `from`. The decay counts in full: in float
// as the sum of two floats. Float: from 17 rows on, the product is made by tensor cores in chains
// of kChainRows rows, whose results are added in order in float, 32 to a run, and the runs in
// order. With fewer rows, in double, and of squares that cannot be split, it is a chain of
// multiply-adds. No result depends on how the work is spread: the same bits every time.
//
// Raises *largest to the bits of the largest element written (see IngestSide), if it is given.
// `scratch` has AdvanceScratchBytes(rows) bytes, for deep products of small states, and is not to
// be used by others until the step is done.
template <typename T>
cudaError_t Advance(const AdvanceRows<T>& rows, void* scratch, const T* from, T* to,
                    uint64_t* largest, cudaStream_t stream);
template <typename T>
int64_t AdvanceScratchBytes(const AdvanceRows<T>& rows);

inline constexpr float kLargestSplit = 3.4e38f;
inline constexpr int kChainRows = 32;
inline constexpr int kFewRows = 16;  // at most that: bound by memory

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_ADVANCE_H_
