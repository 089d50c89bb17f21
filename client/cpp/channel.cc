#include "client/cpp/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_interceptor.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "fisherd/status.h"

namespace fisherd {
namespace {

// Adds the token to a call. A plain channel has no other way to carry one.
class TokenCarrier final : public grpc::experimental::Interceptor {
 public:
  explicit TokenCarrier(const std::string& token) : token_(token) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      batch->GetSendInitialMetadata()->emplace("authorization", "Bearer " + token_);
    }
    batch->Proceed();
  }

 private:
  const std::string& token_;
};

class TokenCarrierFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenCarrierFactory(std::string token) : token_(std::move(token)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new TokenCarrier(token_);
  }

 private:
  const std::string token_;
};

// As far as its name tells.
bool IsThisMachine(const std::string& address) {
  for (const char* start : {"unix:", "unix-abstract:", "localhost:", "127.", "[::1]:"}) {
    if (address.starts_with(start)) return true;
  }
  return false;
}

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

absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectChannel(const std::string& address,
                                                              const ClientOptions& options) {
  if (!options.token.empty() && !options.tls.has_value() && !IsThisMachine(address)) {
    return absl::InvalidArgumentError(
        "a token would travel in the clear to another machine; use TLS");
  }
  grpc::ChannelArguments arguments = DefaultChannelArguments();
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls.has_value()) {
    const Tls& tls = *options.tls;
    credentials = grpc::SslCredentials({.pem_root_certs = tls.root_certificates,
                                        .pem_private_key = tls.private_key,
                                        .pem_cert_chain = tls.certificate_chain});
    if (!tls.server_name.empty()) arguments.SetSslTargetNameOverride(tls.server_name);
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!options.token.empty()) {
    interceptors.push_back(std::make_unique<TokenCarrierFactory>(options.token));
  }
  std::shared_ptr<grpc::Channel> channel = grpc::experimental::CreateCustomChannelWithInterceptors(
      address, credentials, arguments, std::move(interceptors));
  if (channel->WaitForConnected(absl::ToChronoTime(absl::Now() + options.connect_timeout))) {
    return channel;
  }
  return absl::UnavailableError(absl::StrCat("no server answers at ", address, " within ",
                                             absl::FormatDuration(options.connect_timeout)));
}

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
