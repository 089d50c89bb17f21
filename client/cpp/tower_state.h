// What one tower of a stream is told and tells: its replay buffer, and on top of it what has become
// of the steps that its trainer wrote. No locks, no waiting, no I/O.

#ifndef FISHERD_CLIENT_TOWER_STATE_H_
#define FISHERD_CLIENT_TOWER_STATE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/cpp/batch_frames.h"
#include "client/cpp/replay_buffer.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd {

// Not thread-safe.
//
// A refused step takes those after it back with it, see ReplayBuffer. Each of those that was on its
// way is refused by the server too, as out of order: that says nothing new and is not heard.
class TowerState {
 public:
  TowerState(std::string factor, int tower, bool take_over)
      : identity_{.factor = std::move(factor), .tower = tower}, take_over_(take_over) {}

  // ---- Streams

  // What claims the tower on a new stream. Take-over is asked for only until the tower is ours: a
  // process that has taken it since shall keep it.
  v1::Open MakeOpen() const;

  void OnOpened(const v1::Progress& progress);
  void OnAck(const v1::Progress& progress);
  void OnHold(int64_t step) { buffer_.OnHold(step); }
  // Of a batch, or of the tower itself: step 0. Before `opened`, what is said of batches, and that
  // an incarnation has ended, is of a writer before this one; `open` is to be sent once more then,
  // lest it was of this one's.
  void OnRefused(int64_t step, const absl::Status& status);
  void OnCut() { buffer_.OnCut(); }

  // Nothing more will come: the stream has ended for good, or the tower is lost or opened anew. All
  // that was kept goes. The first end counts.
  void End(const absl::Status& status);

  bool opened() const { return buffer_.incarnation() != 0; }
  bool ended() const { return !end_.ok(); }
  const absl::Status& end() const { return end_; }
  v1::Progress progress() const;
  const UpdateStats& stats() const { return stats_; }

  // ---- Writing

  const BatchIdentity& identity() const { return identity_; }  // of no step
  uint64_t incarnation() const { return buffer_.incarnation(); }
  // The step that is to be written next.
  int64_t next_step() const { return buffer_.next_step(); }
  bool has_room() const { return buffer_.has_room(); }

  // What a Write must report in place of writing: the refusal that next_step() went back for, once;
  // or that next_step() has ended, which is thereby skipped. OK if there is nothing.
  absl::Status TakeRefusal();
  absl::Status SkipLateStep();

  // Keeps the batch of next_step().
  void Push(std::shared_ptr<const EncodedBatch> batch);
  // The batch that may be sent now, which is then on its way, or null. `shares`: the server reads
  // what is in shared memory there.
  std::shared_ptr<const EncodedBatch> TakeToSend(bool shares = false);
  // Its step; 0 if there is none.
  int64_t step_to_send() const {
    const ReplayBuffer::Kept* next = buffer_.NextToSend();
    return next == nullptr ? 0 : next->step;
  }
  // Everything written has been sent, on the newest stream or to a step that has ended.
  bool all_sent() const { return buffer_.all_sent(); }
  // Bytes of elements that are kept.
  int64_t bytes() const { return buffer_.bytes(); }

  // How a step ended: OK if it counted. nullopt while that is open.
  std::optional<absl::Status> Outcome(int64_t step);
  // The same, but it is OK only once the step is durable.
  std::optional<absl::Status> DurableOutcome(int64_t step);

 private:
  absl::Status Error(absl::StatusCode code, std::string_view reason, int64_t step,
                     const std::string& message) const;

  const BatchIdentity identity_;
  const bool take_over_;
  ReplayBuffer buffer_;
  absl::Status end_;
  v1::Progress progress_;  // the last, without `missed`
  UpdateStats stats_;
  int64_t sent_through_ = 0;                 // on any stream
  bool refusal_unreported_ = false;          // that of next_step()
  std::map<int64_t, absl::Status> refused_;  // of steps not written again since
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_TOWER_STATE_H_
