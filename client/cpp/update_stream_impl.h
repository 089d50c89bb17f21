// What is behind an UpdateStream and its writers: one gRPC stream at a time, opened again whenever
// it is cut, and the towers whose batches it carries.

#ifndef FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_
#define FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/batch_frames.h"
#include "client/cpp/channel.h"
#include "client/cpp/contribution.h"
#include "client/cpp/mutex.h"
#include "client/cpp/shared_memory.h"
#include "client/cpp/shared_memory_door.h"
#include "client/cpp/tower_state.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {

// Who calls: shared by a client and its streams.
struct ClientIdentity {
  std::string id;                         // Hello::client_id
  std::atomic<uint64_t> grpc_streams{0};  // Hello::stream, the last that was given out
  std::atomic<uint64_t> streams{0};       // UpdateStreams made; the newest is the only one to live
};

// Thread-safe. Two threads of its own: one connects and reads the answers, always, so that the
// server never waits for this side; one sends what answers have made sendable, so that a replay
// needs no caller. A caller sends its own batch, unless it is of several messages: those are copied
// while they are sent. Locks: `wire_` for the order of messages (a batch
// is contiguous), `mutex_` for what is known, taken after it.
class UpdateStream::Impl {
 public:
  // A tower that this stream has opened, or is opening.
  struct Tower : std::enable_shared_from_this<Tower> {
    Tower(const std::string& factor, int tower, bool take_over)
        : identity{.factor = factor, .tower = tower}, state(factor, tower, take_over) {}
    const BatchIdentity identity;  // of no step
    // Guarded by the stream's mutex_.
    TowerState state;
    bool to_open = true;  // on the stream that there is
    bool queued = false;  // in ready_
    CondVar changed;
    // Of the thread that writes.
    bool described = false;
    std::optional<LayerShape> shape;  // null if this library cannot reduce the factor's batches
  };
  using Stub = v1::FactorService::StubInterface;

  // `stub` is one of `channel`.
  Impl(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<Stub> stub,
       std::shared_ptr<ClientIdentity> client, const UpdateStreamOptions& options);
  ~Impl();

  absl::StatusOr<std::shared_ptr<Tower>> Open(const std::string& factor, int tower,
                                              const OpenOptions& options)
      ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  absl::StatusOr<int64_t> Write(Tower& tower, const Batch& batch, const StepOptions& options,
                                absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  absl::Status WaitEnded(Tower& tower, int64_t step, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WaitDurable(Tower& tower, int64_t step, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t NextStep(const Tower& tower) const ABSL_LOCKS_EXCLUDED(mutex_);
  v1::Progress ProgressOf(const Tower& tower) const ABSL_LOCKS_EXCLUDED(mutex_);
  UpdateStats StatsOf(const Tower& tower) const ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Close(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_, wire_, closing_);

 private:
  using Key = std::pair<std::string, int>;  // factor, tower

  // One gRPC stream.
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriterInterface<v1::UpdateRequest, v1::UpdateResponse>>
        stream;
    bool writable = true;  // guarded by wire_
    std::string region;    // of memory_ at the server; empty: not shared. Guarded by mutex_
  };

  // ---- The thread that connects and reads: update_connection.cc
  void Run();
  // Null when there is to be no other.
  std::shared_ptr<Call> Connect();
  // Until the call ends; whether anything was answered.
  bool ReadAnswers(Call& call);
  // Shares memory_ with the server that the call has reached, if it offers that.
  void ShareMemory(Call& call);
  absl::Status Finish(Call& call);
  // Waits before the next attempt; false if the stream has ended for good.
  bool AwaitNextAttempt(const absl::Status& last, bool answered);
  // After a cut: until the channel is connected, or not much longer.
  void AwaitConnection();
  // How the stream ends after its call has; nullopt if another is to be tried.
  std::optional<absl::Status> EndAfter(const absl::Status& last, bool read_everything) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndAll(const absl::Status& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Handle(const v1::UpdateResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Changes the tower that an answer is about, if it is known.
  template <typename Message, typename Change>
  void Apply(const Message& about, Change change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the tower's ended steps have left in shared memory may be used again.
  void FreeShared(const v1::Progress& progress) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After a refusal of the tower that did not end it, see TowerState::OnRefused.
  void OpenAgain(const v1::Refused& refused) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After every change to a tower: its bytes, and what waits for them or for the tower.
  void Changed(const std::shared_ptr<Tower>& tower, int64_t bytes_before)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Sending
  void SendReady();  // the thread that sends
  void Queue(const std::shared_ptr<Tower>& tower) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sends what the tower has to send, up to that step.
  void Pump(Tower& tower, int64_t through) ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  // More than half of the bound is kept: asks the server to save, once until it is less again.
  void WantDurableIfHalfFull() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendWantDurable() ABSL_LOCKS_EXCLUDED(mutex_, wire_);
  bool AllSent() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- Calls
  // Waits until the tower's next step may be written, and reserves its bytes.
  absl::StatusOr<BatchIdentity> AwaitRoom(Tower& tower, int64_t bytes, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Release(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where batches are to lie now; null: nothing is shared.
  std::shared_ptr<SharedMemory> MemoryToShare() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What will travel: the batch's own tensors, or the contribution, which `storage` then holds.
  absl::StatusOr<BatchTensors> Reduce(Tower& tower, const Batch& batch, const StepOptions& options,
                                      Contribution& storage);
  absl::Status Describe(Tower& tower);
  absl::Status WaitOutcome(Tower& tower, int64_t step, absl::Time deadline,
                           std::optional<absl::Status> (TowerState::*outcome)(int64_t))
      ABSL_LOCKS_EXCLUDED(mutex_);
  // What a wait that has run out adds to its message.
  std::string WhyNothingComes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<Stub> stub_;
  const std::shared_ptr<ClientIdentity> client_;
  const uint64_t serial_;  // of ClientIdentity::streams
  const UpdateStreamOptions options_;
  const std::shared_ptr<BufferPool> pool_;

  Mutex wire_;
  mutable Mutex mutex_;
  std::shared_ptr<SharedMemory> memory_ ABSL_GUARDED_BY(mutex_);  // null before the first is shared
  std::map<Key, std::shared_ptr<Tower>> towers_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Tower>> ready_ ABSL_GUARDED_BY(mutex_);  // may have something to send
  CondVar work_;                                                      // for the thread that sends
  int64_t buffered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // kept by towers, or reserved by writers
  CondVar space_;
  // WantDurable has been, or is to be, sent since buffered_bytes_ was last below half of the bound.
  bool half_full_ ABSL_GUARDED_BY(mutex_) = false;
  bool to_want_durable_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);       // null between two
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;             // hello has gone out on call_
  bool done_writing_ ABSL_GUARDED_BY(mutex_) = false;        // call_ is half-closed
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;              // by this side
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;           // and not to be waited for
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);  // why no call can succeed any more
  absl::Status last_ ABSL_GUARDED_BY(mutex_);                // of the last gRPC stream
  CondVar ended_;                                            // or closed_

  // Of the thread that connects.
  absl::Time down_since_ = absl::InfiniteFuture();
  Backoff backoff_;
  std::unique_ptr<SharedMemoryDoor> door_;  // stands, or null; longer than the calls that use it

  Mutex closing_;  // one Close at a time
  std::thread connector_;
  std::thread sender_;
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_UPDATE_STREAM_IMPL_H_
