#include "server/call_metrics.h"

#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/clock.h"

namespace fisherd::server {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

const char* NameOf(ServerRpcInfo::Type type) {
  switch (type) {
    case ServerRpcInfo::Type::UNARY:
      return "unary";
    case ServerRpcInfo::Type::CLIENT_STREAMING:
      return "client_stream";
    case ServerRpcInfo::Type::SERVER_STREAMING:
      return "server_stream";
    case ServerRpcInfo::Type::BIDI_STREAMING:
      return "bidi_stream";
  }
  return "";
}

// One call. gRPC calls it for one operation at a time of each kind, and destroys it with the call.
class CallCounter final : public Interceptor {
 public:
  explicit CallCounter(MethodCounts* counts) : call_(counts) {}

  void Intercept(InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE) &&
        batch->GetRecvMessage() != nullptr) {
      call_.Received();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) call_.Sent();
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      call_.End(batch->GetSendStatus().error_code());
    }
    batch->Proceed();
  }

 private:
  CountedCall call_;
};

}  // namespace

void CountedCall::End(int code) {
  if (ended_.exchange(true)) return;
  const auto known = static_cast<size_t>(code) < counts_.handled.size();
  ++counts_.handled[known ? code : grpc::StatusCode::UNKNOWN];
  counts_.time.Observe(core::SteadyNow() - began_);
}

MethodCounts* CallMetrics::CountsOf(std::string_view path, const char* type) {
  core::MutexLock lock(&mutex_);
  if (const auto found = methods_.find(path); found != methods_.end()) return &found->second;
  MethodCounts& counts = methods_[std::string(path)];
  const size_t slash = path.rfind('/');
  counts.type = type;
  if (slash != std::string_view::npos && slash > 0) counts.service = path.substr(1, slash - 1);
  counts.method = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
  return &counts;
}

std::unique_ptr<CountedCall> CallMetrics::Count() {
  return std::make_unique<CountedCall>(
      CountsOf(own_path_, NameOf(ServerRpcInfo::Type::BIDI_STREAMING)));
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
CallMetrics::NewInterceptorFactory() {
  class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
   public:
    explicit Factory(CallMetrics* metrics) : metrics_(*metrics) {}
    Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
      if (info->method() == metrics_.own_path_) return nullptr;
      return new CallCounter(metrics_.CountsOf(info->method(), NameOf(info->type())));
    }

   private:
    CallMetrics& metrics_;
  };
  return std::make_unique<Factory>(this);
}

std::vector<const MethodCounts*> CallMetrics::All() const {
  core::MutexLock lock(&mutex_);
  std::vector<const MethodCounts*> all;
  for (const auto& [path, counts] : methods_) all.push_back(&counts);
  return all;
}

std::string CodeName(int code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

}  // namespace fisherd::server
