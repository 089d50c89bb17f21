// A finished batch as bytes: what the log of steps keeps of it.

#ifndef FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_SAVED_BATCH_H_
#define FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_SAVED_BATCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/kinds/fully_connected_diagonal/batch.h"
#include "core/matrix.h"

namespace fisherd::core {

// A head of fixed size, then the elements as they lie in memory, which is the same for every
// target: the product reads again exactly what it has read. `cols` is I, and `state` the shape of
// the state.
int64_t SavedBatchBytes(const FullyConnectedDiagonalBatch& batch, int64_t cols,
                        const MatrixShape& state);
std::string SaveBatch(const FullyConnectedDiagonalBatch& batch, int64_t cols,
                      const MatrixShape& state);
// Null for bytes that are no batch of such a factor, and if there is no memory.
std::unique_ptr<FullyConnectedDiagonalBatch> LoadBatch(std::string_view bytes, int64_t cols,
                                                       const MatrixShape& state);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_SAVED_BATCH_H_
