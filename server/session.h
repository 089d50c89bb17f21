// One trainer's update stream without gRPC: messages in, answers out.

#ifndef FISHERD_SERVER_SESSION_H_
#define FISHERD_SERVER_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/factor.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "fisherd/v1/update.pb.h"
#include "server/auth/guard.h"
#include "server/frame_decoder.h"
#include "server/shared_regions.h"

namespace fisherd::server {

class SessionTable;

// Follows the grammar and the rules of update.proto. Holds the batch that is on its way and the
// answers that have not been taken, never a message.
//
// Of answers there are those that the client caused, one for each open and at most two for each
// batch (a hold may come later than the batch), which wait in order; and acknowledgements, of which
// each open tower has at most one pending: its content is the factor's progress at the moment when
// it is taken. So the progress of others never grows a slow reader's queue.
//
// Thread-safe, with one Receive and one NextAnswer at a time. Held by shared_ptr: by its stream, by
// the table until Close, and by the factors whose towers it has claimed.
class Session final : public core::ProgressListener, public std::enable_shared_from_this<Session> {
 public:
  // No more messages should be asked for while that many answers wait. This cannot deadlock: only
  // the client's own messages add to them, and it is bound to read.
  static constexpr size_t kMaxWaitingAnswers = 1024;

  // `wake` is called, without locks and on any thread, when NextAnswer may have something that no
  // Receive of this session has caused, and after Close. `registry`, `sessions` and `regions` must
  // outlive it; without the last (null) no memory is shared.
  Session(core::FactorRegistry& registry, SessionTable& sessions, std::function<void()> wake,
          const SharedRegions* regions = nullptr, Caller caller = Caller());

  // Takes the next message, in pieces that need live only as long as the call. An error is the end
  // of the stream: MALFORMED_FRAME, STREAM_SUPERSEDED, TOO_MANY_STREAMS, REGION_UNKNOWN, or what
  // Close was given.
  // What is wrong with one open or batch is answered instead.
  absl::Status Receive(std::span<const std::string_view> message);

  // The next answer to send; nullopt if there is none now.
  std::optional<v1::UpdateResponse> NextAnswer();
  // Whether another message should be asked for.
  bool WantsMessage() const;

  // The stream has ended, or shall end with `reason`: the unfinished batch, the claims and the
  // answers go. When it returns they are gone. Only the first call counts.
  void Close(absl::Status reason);
  // What Close was given.
  std::optional<absl::Status> closed() const;

  void OnProgress(const std::shared_ptr<core::Factor>& factor) override;
  void OnHold(const std::shared_ptr<core::Factor>& factor, int tower, int64_t step) override;

 private:
  using TowerKey = std::pair<std::string, int>;  // factor, tower
  struct OpenTower {
    std::shared_ptr<core::Factor> factor;
    uint64_t incarnation = 0;
    uint64_t serial = 0;       // tells one open of a tower from the next
    int64_t told_next = 1;     // steps below it have been told
    bool ack_pending = false;  // its key is in acks_
  };
  // Between a header and its end.
  struct IncomingBatch {
    TowerKey tower;
    int64_t step = 0;
    std::unique_ptr<core::PendingBatch> pending;  // null: read and discarded,
    bool duplicate = false;                       // because it is here already
  };

  absl::Status ReceiveFrame(std::span<const std::string_view> message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  absl::Status CheckGrammar(const v1::UpdateRequest& message) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  absl::Status Enter(const v1::Hello& hello) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  void WantDurable();
  void Open(const v1::Open& open) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  absl::Status TryOpen(const TowerKey& key, const v1::Open& open)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  void BeginBatch(const v1::BatchHeader& header) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  absl::Status Admit(const v1::BatchHeader& header) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  absl::Status NotOpen(const TowerKey& key) const;
  absl::Status AddRows(const UpdateFrame& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  void EndBatch(const v1::BatchEnd& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);
  void Hold(const TowerKey& key, int64_t step);
  void RefuseBatch(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(receiving_);

  void Answer(v1::UpdateResponse answer);
  // True if no acknowledgement was pending before.
  bool AddAck(const TowerKey& key, OpenTower& tower) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<v1::UpdateResponse> Acknowledge(const TowerKey& key, const OpenTower& tower);

  core::FactorRegistry& registry_;
  SessionTable& sessions_;
  const std::function<void()> wake_;
  const SharedRegions* const regions_;
  const Caller caller_;

  core::Mutex receiving_;  // before mutex_, and before the locks of table and factors
  bool entered_ ABSL_GUARDED_BY(receiving_) = false;
  core::ClientId client_ ABSL_GUARDED_BY(receiving_){};
  std::optional<IncomingBatch> batch_ ABSL_GUARDED_BY(receiving_);
  core::SmallCommit commit_ ABSL_GUARDED_BY(receiving_);  // for when the lock is no longer held

  mutable core::Mutex mutex_;  // nothing is called while it is held
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
  std::map<TowerKey, OpenTower> towers_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_serial_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<v1::UpdateResponse> answers_ ABSL_GUARDED_BY(mutex_);
  std::deque<TowerKey> acks_ ABSL_GUARDED_BY(mutex_);  // towers with ack_pending, in order
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SESSION_H_
