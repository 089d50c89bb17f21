// Where the arithmetic of a step happens. The CPU now; the interface is what another device would
// implement.

#ifndef FISHERD_CORE_BACKEND_H_
#define FISHERD_CORE_BACKEND_H_

#include <cstdint>
#include <span>
#include <string>

#include "core/kernels/packed.h"
#include "core/matrix.h"

namespace fisherd::core {

// One tower's rows, squared: `left` is A∘A [rows, left_cols], `right` is Σ_s G_s∘G_s [rows,
// right_cols] (times the row weights, if any), of the state's type, packed in panels of
// kernels::kLeftPanelLines and kernels::kRightPanelLines.
struct SquaredRows {
  const void* left = nullptr;
  const void* right = nullptr;
  int64_t rows = 0;
  double scale = 1;  // what this tower's product is multiplied by
};

// One tower's part, ready-made: its elements are those of the state.
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

// Thread-safe: steps of different matrices may run at once.
class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu (avx2)", for the log.
  virtual std::string name() const = 0;

  // to = decay·from + weight·(Σ_t scale_t·[left_t 1]ᵀ·right_t + Σ_r scale_r·elements_r), element by
  // element of the state, in the order that kernels/advance.h defines, and after it
  // kernels/accumulate.h: the same bits for every number of threads. `to` may be `from`. Returns
  // the largest element written if it is asked for (infinity or NaN if one is not finite), else 0.
  virtual double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BACKEND_H_
