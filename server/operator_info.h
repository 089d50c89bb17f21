// What Read and Multiply share.

#ifndef FISHERD_SERVER_OPERATOR_INFO_H_
#define FISHERD_SERVER_OPERATOR_INFO_H_

#include "absl/time/time.h"
#include "core/factor.h"
#include "core/factor_registry.h"
#include "fisherd/v1/factor_service.pb.h"
#include "server/waiting_reads.h"

namespace fisherd::server {

// What the reactors of Read and Multiply are given. All of it outlives them.
struct ReadEnvironment {
  const core::FactorRegistry* registry = nullptr;
  WaitingReads* waiting_reads = nullptr;
  absl::Duration stall_timeout = absl::InfiniteDuration();
};

// Without class_name and dimensions if the result has no operator (`unchanged`).
v1::OperatorInfo OperatorInfoOf(const core::ReadResult& result);

// DEADLINE_EXCEEDED (READ_STALLED).
absl::Status Stalled(absl::Duration timeout);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_OPERATOR_INFO_H_
