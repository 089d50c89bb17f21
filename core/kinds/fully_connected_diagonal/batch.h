// One tower's rows of a fully-connected layer, squared as they come in.

#ifndef FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_BATCH_H_
#define FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_BATCH_H_

#include <cstdint>
#include <memory>

#include "core/batch_header.h"
#include "core/kinds/kind.h"

namespace fisherd::core {

// Either the squares of its rows, A∘A [N, I] and Σ_s G_s∘G_s [N, O], times the row weights if there
// are any, in the state's type, packed for the product: ingest is one pass that converts, applies
// gradient_scale (rounded once to the state's type), checks finite, squares, and adds the sources
// in ascending order. Or a contribution, see contribution.h.
class FullyConnectedDiagonalBatch : public Batch {
 public:
  // Of a finished batch.
  struct Squares {
    const void* left = nullptr;   // A∘A, packed in panels of kernels::kLeftPanelLines
    const void* right = nullptr;  // Σ_s G_s∘G_s, in panels of kernels::kRightPanelLines
    int64_t rows = 0;             // N as sent
    double left_max = 0;          // the largest element of each
    double right_max = 0;
  };
  const Squares& squares() const { return squares_; }

  struct Reduced {
    const void* elements = nullptr;  // [H, O], divided by N; null: the batch has squares instead
    double max = 0;
  };
  const Reduced& contribution() const { return contribution_; }
  bool is_contribution() const { return contribution_.elements != nullptr; }

  // What stands for N in means: the sum of the row weights, or N.
  double examples() const { return examples_; }

 protected:
  Squares squares_;
  Reduced contribution_;
  double examples_ = 0;
};

// `header` is one that the kind has accepted, `state` FLOAT32 or FLOAT64; nullptr if there is no
// memory.
std::unique_ptr<FullyConnectedDiagonalBatch> NewFullyConnectedDiagonalBatch(
    const BatchHeader& header, DataType state, HostMemory* memory);

// Bytes that it holds.
int64_t FullyConnectedDiagonalBatchBytes(const BatchHeader& header, DataType state);

// The sums of row weights that a batch may have: wide enough for any weights that mean something,
// and narrow enough that sums and reciprocals over all towers are normal numbers.
inline constexpr double kMinWeightSum = 1e-300;
inline constexpr double kMaxWeightSum = 1e300;

}  // namespace fisherd::core

#endif  // FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_BATCH_H_
