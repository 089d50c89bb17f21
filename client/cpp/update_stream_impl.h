// The one gRPC stream behind an UpdateStream and its writers.

#ifndef FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_
#define FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/batch_frames.h"
#include "client/cpp/mutex.h"
#include "client/cpp/tower_state.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {

// Thread-safe. One thread of its own reads the answers, always, so that the server never waits for
// this side; the callers' threads write. Two locks, never held together: `wire_` for the order of
// messages (a batch is contiguous), `mutex_` for what the towers know.
class UpdateStream::Impl {
 public:
  // A tower that this stream has opened, or is opening.
  struct Tower {
    Tower(std::string factor, int tower) : state(std::move(factor), tower) {}
    TowerState state;  // guarded by mutex_
    CondVar changed;
  };

  // Sends hello and begins to read.
  Impl(v1::FactorService::StubInterface& stub, const std::string& client_id, uint64_t stream,
       const UpdateStreamOptions& options);
  ~Impl();

  absl::StatusOr<std::shared_ptr<Tower>> Open(const std::string& factor, int tower,
                                              const OpenOptions& options)
      ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  absl::StatusOr<int64_t> Write(Tower& tower, BatchIdentity identity, const Batch& batch,
                                const StepOptions& options, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  absl::Status WaitEnded(Tower& tower, int64_t step, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t NextStep(const Tower& tower) const ABSL_LOCKS_EXCLUDED(mutex_);
  v1::Progress ProgressOf(const Tower& tower) const ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Close(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_, wire_, closing_);

 private:
  using Key = std::pair<std::string, int>;  // factor, tower

  void ReadAnswers();
  void Handle(const v1::UpdateResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HandleRefused(const v1::Refused& refused) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Tower* Find(const std::string& factor, int tower) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  bool Send(const v1::UpdateRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(wire_);
  // Waits until the window has room for the tower's next step, and returns it.
  absl::StatusOr<int64_t> AwaitRoom(Tower& tower, const BatchIdentity& identity,
                                    absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // After a failed Send: how the stream ended.
  absl::Status AwaitEnd() ABSL_LOCKS_EXCLUDED(mutex_);

  const int64_t max_frame_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriterInterface<v1::UpdateRequest, v1::UpdateResponse>> call_;
  std::thread reader_;

  Mutex wire_;
  bool writable_ ABSL_GUARDED_BY(wire_) = true;

  mutable Mutex mutex_;
  std::map<Key, std::shared_ptr<Tower>> towers_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;              // by this side
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);  // why no call can succeed any more
  absl::Status last_ ABSL_GUARDED_BY(mutex_);                // the server's last status
  CondVar ended_;

  Mutex closing_;  // one Close at a time
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_
