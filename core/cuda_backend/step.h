// A step on a card.

#ifndef FISHERD_CORE_CUDA_BACKEND_STEP_H_
#define FISHERD_CORE_CUDA_BACKEND_STEP_H_

#include "core/backend.h"
#include "core/cuda/advance.h"
#include "core/cuda/card.h"
#include "core/matrix.h"

namespace fisherd::core {

// As Backend::Advance, with states of `shape` in the card's memory. Waits for one of its lanes, and
// until the step is done. A step that has written something and cannot go on ends the card's use.
double AdvanceOnCard(cuda::Card& card, const AdvanceStep& step, cuda::Precision precision,
                     const MatrixShape& shape, const void* from, void* to);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_CUDA_BACKEND_STEP_H_
