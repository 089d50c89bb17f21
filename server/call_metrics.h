// Counts of gRPC calls, under the names that gRPC servers give them everywhere.

#ifndef FISHERD_SERVER_CALL_METRICS_H_
#define FISHERD_SERVER_CALL_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/activity.h"
#include "core/mutex.h"
#include "grpcpp/support/server_interceptor.h"
#include "grpcpp/support/status.h"

namespace fisherd::server {

// What is known of one method. Its counts only ever grow.
struct MethodCounts {
  std::string type;  // "unary", "client_stream", "server_stream", "bidi_stream"
  std::string service;
  std::string method;
  std::atomic<int64_t> started = 0;
  std::atomic<int64_t> received = 0;  // messages
  std::atomic<int64_t> sent = 0;
  std::array<std::atomic<int64_t>, grpc::StatusCode::UNAUTHENTICATED + 1> handled{};  // by code
  core::Histogram time;  // from the first metadata to the status
};

// Thread-safe. Must outlive the calls that it counts.
class CallMetrics {
 public:
  // To be given to a ServerBuilder.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewInterceptorFactory();

  // Of all methods that were called; they stay as long as this does.
  std::vector<const MethodCounts*> All() const;

 private:
  friend class CallCounter;
  MethodCounts* CountsOf(const grpc::experimental::ServerRpcInfo& info);

  mutable core::Mutex mutex_;
  // By path. There are only so many: gRPC intercepts calls of methods that the server has.
  std::map<std::string, MethodCounts, std::less<>> methods_ ABSL_GUARDED_BY(mutex_);
};

// "INVALID_ARGUMENT"; "UNKNOWN" for what is none.
std::string CodeName(int code);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_CALL_METRICS_H_
