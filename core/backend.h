// Where the arithmetic of a step happens, and where states live: the processor, or a device.

#ifndef FISHERD_CORE_BACKEND_H_
#define FISHERD_CORE_BACKEND_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "core/host_memory.h"
#include "core/kernels/packed.h"
#include "core/matrix.h"

namespace fisherd::core {

// One tower's rows, squared: `left` is A∘A [rows, left_cols], `right` is Σ_s G_s∘G_s [rows,
// right_cols] (times the row weights, if any), of the state's type, in host memory, packed in
// panels of kernels::kLeftPanelLines and kernels::kRightPanelLines.
struct SquaredRows {
  const void* left = nullptr;
  const void* right = nullptr;
  int64_t rows = 0;
  double scale = 1;    // what this tower's product is multiplied by
  double largest = 0;  // of all these squares
};

// One tower's part, ready-made: its elements are those of the state, in host memory.
struct ReducedTower {
  const void* elements = nullptr;
  double scale = 1;
};

struct AdvanceStep {
  double decay = 0;
  double weight = 0;
  bool ones_column = false;  // as if `left` had a last column of ones: the bias row
  std::span<const SquaredRows> towers = {};
  std::span<const ReducedTower> reduced = {};
  bool find_largest = false;  // whoever cannot rule out overflow asks for the largest element
};

// Thread-safe: steps of different matrices may run at once. Outlives what it has made.
class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu (avx2)", "cuda:0 (NVIDIA H100 80GB HBM3)": for people.
  virtual std::string name() const = 0;

  // Memory for a state or a result, uninitialised: the only matrices that it advances. nullptr if
  // there is none.
  virtual std::unique_ptr<Matrix> NewMatrix(const MatrixShape& shape) { return Matrix::New(shape); }

  // Where batches wait for their step; null: the heap.
  virtual HostMemory* batch_memory() { return nullptr; }

  // The most bytes that the batches of one step may have.
  virtual int64_t step_limit() const { return std::numeric_limits<int64_t>::max(); }

  // UNAVAILABLE (DEVICE_LOST), for good, once what it computes or keeps cannot be trusted.
  virtual absl::Status Check() const { return absl::OkStatus(); }

  // to = decay·from + weight·(Σ_t scale_t·[left_t 1]ᵀ·right_t + Σ_r scale_r·elements_r), element by
  // element of the state. `to` may be `from`. Returns the largest element written if it is asked
  // for (infinity or NaN if one is not finite), else 0; NaN if the step could not be computed.
  // The same bits each time: on the processor in the order that kernels/advance.h defines, and
  // after it kernels/accumulate.h, for every number of threads.
  virtual double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BACKEND_H_
