// Where the arithmetic of a step happens. The CPU now; the interface is what another device would
// implement.

#ifndef FISHERD_CORE_BACKEND_H_
#define FISHERD_CORE_BACKEND_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "core/matrix.h"

namespace fisherd::core {

// One tower's rows, squared: `left` is A∘A [rows, left_cols], `right` is Σ_s G_s∘G_s [rows,
// right_cols] (times the row weights, if any), both row-major of the state's type.
struct SquaredRows {
  const void* left = nullptr;
  const void* right = nullptr;
  int64_t rows = 0;
  double scale = 1;  // what this tower's product is multiplied by
};

struct AdvanceStep {
  double decay = 0;
  double weight = 0;
  bool ones_column = false;  // as if `left` had a last column of ones: the bias row
  std::span<const SquaredRows> towers;
};

// Thread-safe: steps of different matrices may run at once.
class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu (Eigen)", for the log.
  virtual std::string_view name() const = 0;

  // to = decay·from + weight·Σ_t scale_t·[left_t 1]ᵀ·right_t, element by element of the state.
  //
  // `to` may be `from`. The sum is the one of SPEC §1: towers ascending, rows in order, in chains
  // of 256 rows that end with their tower; each chain's result, times scale_t, is added in order.
  // Chains are summed in the state's type. What follows, the moving average too, is taken in 64
  // bits, so that a decay near 1 does not drift from total_weight, and rounded once. The same bits
  // for every number of threads.
  virtual void Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BACKEND_H_
