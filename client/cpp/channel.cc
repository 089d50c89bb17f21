#include "client/cpp/channel.h"

#include <grpc/grpc.h>

#include <algorithm>

#include "fisherd/status.h"

namespace fisherd {
namespace {

// Whatever is sent twice by these ends as if it had been sent once. Streams have rules of their
// own, and DeleteFactor and the like would say NOT_FOUND the second time.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [
      {"service": "fisherd.v1.FactorService", "method": "CreateFactor"},
      {"service": "fisherd.v1.FactorService", "method": "DescribeFactor"},
      {"service": "fisherd.v1.FactorService", "method": "ListFactors"},
      {"service": "fisherd.v1.FactorService", "method": "SetTowers"},
      {"service": "fisherd.v1.FactorService", "method": "SetDamping"},
      {"service": "fisherd.v1.FactorService", "method": "ListDampings"},
      {"service": "fisherd.v1.FactorService", "method": "Register"},
      {"service": "fisherd.v1.FactorService", "method": "UpdateInverses"},
      {"service": "grpc.health.v1.Health", "method": "Check"}
    ],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 3,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";

}  // namespace

grpc::ChannelArguments DefaultChannelArguments() {
  grpc::ChannelArguments arguments;
  // With the probe on, transfers in large messages are slower and the peer buffers far more.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10'000);
  arguments.SetServiceConfigJSON(kServiceConfig);
  return arguments;
}

bool MayPass(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
      return true;
    case absl::StatusCode::kResourceExhausted:
      return RetryDelay(status).has_value();
    default:
      return false;
  }
}

absl::Duration Backoff::Next(const absl::Status& last) {
  const absl::Duration doubled =
      std::min(first_ * (int64_t{1} << std::min(attempts_++, 30)), most_);
  std::uniform_real_distribution<double> jitter(0.75, 1.25);
  return RetryDelay(last).value_or(doubled * jitter(random_));
}

}  // namespace fisherd
