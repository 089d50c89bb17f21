// Errors on the wire: core's absl::Status as google.rpc.Status (SPEC §6).

#ifndef FISHERD_SERVER_STATUS_H_
#define FISHERD_SERVER_STATUS_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace fisherd::server {

// Of every ErrorInfo.
inline constexpr std::string_view kErrorDomain = "fisherd";

// The first `max_bytes` bytes of `text` at most, as UTF-8: what is not UTF-8 becomes '?'. A message
// may quote what a caller sent, and protobuf's strings must be UTF-8.
std::string Utf8Prefix(std::string_view text, size_t max_bytes);

// Code, message, and as details an ErrorInfo (with reason and metadata, where `status` has them)
// and a RetryInfo (where trying again may help). The texts are cut so that the whole fits gRPC's
// 8 KiB of trailing metadata.
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The same as a call's status: the google.rpc.Status is its serialized details. OK is OK.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STATUS_H_
