// What Read and Multiply share.

#ifndef FISHERD_SERVER_READ_CALL_H_
#define FISHERD_SERVER_READ_CALL_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/factor.h"
#include "core/factor_registry.h"
#include "core/linear_operator.h"
#include "fisherd/v1/factor_service.pb.h"
#include "server/waiting_reads.h"

namespace fisherd::server {

// What their reactors are given. All of it outlives them.
struct ReadEnvironment {
  const core::FactorRegistry* registry = nullptr;
  WaitingReads* waiting_reads = nullptr;
  absl::Duration stall_timeout = absl::InfiniteDuration();
};

// A checked request: what to read of which factor, and how its elements travel.
struct ReadCall {
  std::shared_ptr<core::Factor> factor;
  core::ReadRequest request;
  core::TensorView view;
};

// NOT_FOUND or INVALID_ARGUMENT, naming factor and field.
absl::StatusOr<ReadCall> ParseReadCall(const core::FactorRegistry& registry,
                                       const v1::ReadRequest& request);
absl::StatusOr<ReadCall> ParseReadCall(const core::FactorRegistry& registry,
                                       const v1::MultiplyHeader& header);

// Without class_name and dimensions if the result has no operator (`unchanged`).
v1::OperatorInfo OperatorInfoOf(const core::ReadResult& result);

// DEADLINE_EXCEEDED (READ_STALLED).
absl::Status Stalled(absl::Duration timeout);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_READ_CALL_H_
