// The reactor of one Watch: the factors that there are, then what happens to them.

#ifndef FISHERD_SERVER_WATCH_STREAM_H_
#define FISHERD_SERVER_WATCH_STREAM_H_

#include <memory>
#include <string>

#include "core/factor_registry.h"
#include "core/mutex.h"
#include "core/watch_hub.h"
#include "fisherd/v1/factor_service.pb.h"
#include "grpcpp/support/server_callback.h"

namespace fisherd::server {

// Sends events as they come, up to 256 in a message, one write at a time. A caller that does not
// read holds no more than its watcher's queue and one message. Ends when the caller cancels, or
// with UNAVAILABLE (SHUTTING_DOWN). Owns itself until gRPC is done with it.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchResponse>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  // For the service to return. The registry must outlive the server.
  static WatchStream* Start(core::FactorRegistry& registry, const v1::WatchRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  WatchStream(core::FactorRegistry& registry, const v1::WatchRequest& request);

  // Starts whatever there is to do now.
  void Proceed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FillResponse() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  core::FactorRegistry& registry_;
  const std::string prefix_;
  std::shared_ptr<WatchStream> self_;

  core::Mutex mutex_;  // before the locks of factors and watchers
  std::shared_ptr<core::Watcher> watcher_ ABSL_GUARDED_BY(mutex_);
  bool listed_ ABSL_GUARDED_BY(mutex_) = false;  // all factors that there were have been presented
  std::string last_listed_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;

  v1::WatchResponse response_;  // gRPC's while writing_
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_WATCH_STREAM_H_
