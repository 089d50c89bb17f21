#include <algorithm>

#include "core/cuda/advance.h"
#include "core/cuda/advance_few.cuh"
#include "core/cuda/advance_plain.cuh"
#include "core/cuda/advance_tensor.cuh"

namespace fisherd::cuda {

template <>
int64_t AdvanceScratchBytes<float>(const AdvanceRows<float>& rows) {
  if (rows.rows <= kFewRows || !rows.splittable) return 0;
  const int64_t parts = tensor::PartsOf(rows);
  return parts > 1 ? parts * rows.left_cols * rows.right_cols * int64_t{sizeof(float)} : 0;
}

template <>
int64_t AdvanceScratchBytes<double>(const AdvanceRows<double>&) {
  return 0;
}

template <>
cudaError_t Advance<float>(const AdvanceRows<float>& rows, void* scratch, const float* from,
                           float* to, uint64_t* largest, cudaStream_t stream) {
  if (rows.rows <= kFewRows) return AdvanceFew(rows, from, to, largest, stream);
  if (!rows.splittable) return AdvancePlain(rows, from, to, largest, stream);
  const auto advance = rows.precision == Precision::kFloat32 ? AdvanceTensor<Precision::kFloat32>
                                                             : AdvanceTensor<Precision::kTf32>;
  return advance(rows, static_cast<float*>(scratch), from, to, largest, stream);
}

template <>
cudaError_t Advance<double>(const AdvanceRows<double>& rows, void*, const double* from, double* to,
                            uint64_t* largest, cudaStream_t stream) {
  return AdvancePlain(rows, from, to, largest, stream);
}

}  // namespace fisherd::cuda
