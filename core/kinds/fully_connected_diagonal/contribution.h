// One tower's part of a step as its sender has reduced it.

#ifndef FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_CONTRIBUTION_H_
#define FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_CONTRIBUTION_H_

#include <cstdint>
#include <memory>

#include "core/batch_header.h"
#include "core/kinds/fully_connected_diagonal/batch.h"

namespace fisherd::core {

// `header` is one that the kind has accepted, of form kContribution; nullptr if there is no memory.
std::unique_ptr<FullyConnectedDiagonalBatch> NewContribution(const BatchHeader& header,
                                                             DataType state, HostMemory* memory);

// Bytes that it holds.
int64_t ContributionBytes(const BatchHeader& header, DataType state);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_KINDS_FULLY_CONNECTED_DIAGONAL_CONTRIBUTION_H_
