// Counts of gRPC calls, under the names that gRPC servers give them everywhere.

#ifndef FISHERD_SERVER_CALL_METRICS_H_
#define FISHERD_SERVER_CALL_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/activity.h"
#include "core/clock.h"
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

// One call, as it is counted: from its construction to End, or its destruction. As thread-safe as
// gRPC is with one call.
class CountedCall {
 public:
  explicit CountedCall(MethodCounts* counts) : counts_(*counts) { ++counts_.started; }
  // A call whose peer had gone before it had a status.
  ~CountedCall() { End(grpc::StatusCode::CANCELLED); }
  CountedCall(const CountedCall&) = delete;
  CountedCall& operator=(const CountedCall&) = delete;

  void Received() { counts_.received.fetch_add(1, std::memory_order_relaxed); }
  void Sent() { counts_.sent.fetch_add(1, std::memory_order_relaxed); }
  // The first time it is told.
  void End(int code);

 private:
  MethodCounts& counts_;
  const absl::Time began_ = core::SteadyNow();
  std::atomic<bool> ended_ = false;
};

// Thread-safe. Must outlive the calls that it counts.
class CallMetrics {
 public:
  // Calls of the method at `own_path`, "/package.Service/Method", a stream both ways, count
  // themselves, by Count: gRPC's interceptors take a noticeable part of the time of a small
  // message.
  explicit CallMetrics(std::string own_path = "") : own_path_(std::move(own_path)) {}

  std::unique_ptr<CountedCall> Count();

  // To be given to a ServerBuilder.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewInterceptorFactory();

  // Of all methods that were called; they stay as long as this does.
  std::vector<const MethodCounts*> All() const;

 private:
  MethodCounts* CountsOf(std::string_view path, const char* type);

  const std::string own_path_;
  mutable core::Mutex mutex_;
  // By path. There are only so many: gRPC intercepts calls of methods that the server has.
  std::map<std::string, MethodCounts, std::less<>> methods_ ABSL_GUARDED_BY(mutex_);
};

// "INVALID_ARGUMENT"; "UNKNOWN" for what is none.
std::string CodeName(int code);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_CALL_METRICS_H_
