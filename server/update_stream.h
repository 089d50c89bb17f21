// The thin gRPC reactor around a Session.

#ifndef FISHERD_SERVER_UPDATE_STREAM_H_
#define FISHERD_SERVER_UPDATE_STREAM_H_

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/auth/guard.h"
#include "server/call_metrics.h"
#include "server/session.h"
#include "server/session_table.h"
#include "server/shared_regions.h"

namespace fisherd::server {

// Serves FactorService.Update over raw byte buffers, so that payloads are read where gRPC has put
// them. One read at a time, asked for when the message before it is consumed; one write at a time.
//
// The stream ends with the session's error; or, once the client has closed its side, with OK after
// the answers that are pending then. Owns itself until gRPC is done with it.
class UpdateStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           public std::enable_shared_from_this<UpdateStream> {
 public:
  // For WithRawCallbackMethod_Update's handler to return. What it is given must outlive the server;
  // `regions` may be null. Keeps `place` as long as it lives. `counted` hears of its messages and
  // its end; null: nobody asks.
  static UpdateStream* Start(core::FactorRegistry& registry, SessionTable& sessions,
                             const SharedRegions* regions, const Caller& caller = Caller(),
                             std::shared_ptr<void> place = nullptr,
                             std::unique_ptr<CountedCall> counted = nullptr);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  UpdateStream() = default;

  absl::Status ReceiveRequest();
  // Starts whatever there is to do now.
  void Proceed();
  // True if it is time to finish, which no other caller is told.
  bool StartOperations() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::shared_ptr<UpdateStream> self_;
  std::shared_ptr<void> place_;
  std::unique_ptr<CountedCall> counted_;
  std::shared_ptr<Session> session_;

  core::Mutex mutex_;                                        // before the session's locks
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);  // how the stream shall end
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool client_is_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;

  grpc::ByteBuffer request_;   // gRPC's while reading_
  grpc::ByteBuffer response_;  // gRPC's while writing_
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_UPDATE_STREAM_H_
