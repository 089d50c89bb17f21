// The diagonal of a fully-connected layer's Fisher information: tf.contrib.kfac's
// FullyConnectedDiagonalFactor.
//
//   C(s,t) = (A_t ∘ A_t)ᵀ (G_st ∘ G_st) / N_t      [H, O], the bias as last row
//   C      = (1/T) Σ_t Σ_s C(s,t), or Σ_t Σ_s N_t·C(s,t) / Σ_t N_t where towers are weighted by
//            their examples

#ifndef FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_FULLY_CONNECTED_DIAGONAL_H_
#define FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_FULLY_CONNECTED_DIAGONAL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "core/factor_spec.h"
#include "core/kinds/kind.h"

namespace fisherd::core {

// The kind for `layer`; what is common to all kinds in `spec` has been checked. INVALID_ARGUMENT
// naming the field unless the sizes are at least 1 and the state can be addressed.
absl::StatusOr<std::unique_ptr<const Kind>> MakeFullyConnectedDiagonal(
    const FactorSpec& spec, const FullyConnectedDiagonalSpec& layer);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_FULLY_CONNECTED_DIAGONAL_H_
