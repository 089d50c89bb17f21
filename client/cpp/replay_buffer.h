// What one tower keeps of its batches until the server needs them no more, and which of them may be
// sent next: the client's rules of update.proto. A value without locks, clock or I/O, so that it
// can be copied, compared and hashed by a model check.

#ifndef FISHERD_CLIENT_REPLAY_BUFFER_H_
#define FISHERD_CLIENT_REPLAY_BUFFER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace fisherd {

struct EncodedBatch;

// Not thread-safe. The steps of a tower are pushed in order and sent in order; a process has one of
// these for each of its towers, and one bound for the bytes of all.
//
// A batch is kept until its step has ended without it (`missed`), or has counted it and is durable,
// or the server has refused it. A stream that ends takes nothing away: the next one is opened with
// range(), and sends every kept batch from `next` on again.
class ReplayBuffer {
 public:
  // Ended steps that did not count this tower's batch, see v1::StepRun.
  struct Run {
    int64_t first = 0;
    int64_t last = 0;
    bool failed = false;  // nothing counted, else only others

    bool operator==(const Run&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Run& run) {
      return H::combine(std::move(h), run.first, run.last, run.failed);
    }
  };

  // As v1::Progress.
  struct Progress {
    uint64_t incarnation = 0;
    uint64_t epoch = 0;
    int64_t next = 1;
    int64_t durable = 0;
    int64_t open_through = 0;
    int64_t window = 1;
    int64_t first = 0;
    std::vector<Run> missed;
  };

  // A batch's bytes are its owner's affair; they are never looked at.
  using Payload = std::shared_ptr<const EncodedBatch>;
  struct Kept {
    int64_t step = 0;
    int64_t bytes = 0;
    Payload payload;

    bool operator==(const Kept& other) const { return step == other.step && bytes == other.bytes; }
    template <typename H>
    friend H AbslHashValue(H h, const Kept& kept) {
      return H::combine(std::move(h), kept.step, kept.bytes);
    }
  };

  // For v1::Open: the lowest step that can still be sent and the highest that was pushed; both 0
  // before the first `opened`.
  struct Range {
    int64_t from = 0;
    int64_t through = 0;
  };
  Range range() const;

  // ---- What the server says, on the newest stream.

  // False, and no change, if this is another incarnation: what is kept is of no use any more.
  bool OnOpened(const Progress& progress);
  // Ignored before `opened`, and of another incarnation or epoch.
  void OnAck(const Progress& progress);
  // The tower's batches from `step` on are not at the server; they will be sent again, `step` once
  // it is open.
  void OnHold(int64_t step);
  // The batch of `step` will not count. It goes, and those after it too: the server takes no step
  // without the one before, so next_step() is `step` again. False if it had not been pushed.
  bool OnRefused(int64_t step);
  // The batch of `step` came too late; those after it stay.
  void OnLate(int64_t step);
  // The stream has ended: nothing is sent until the next `opened`.
  void OnCut() { open_ = false; }

  // ---- Batches

  // The step that the next push is of.
  int64_t next_step() const { return next_step_; }
  // It has ended already, without a batch of this tower: it can only be skipped.
  bool next_step_is_late() const { return next_step_ < next_; }
  void SkipStep() { ++next_step_; }
  // The window has room for it.
  bool has_room() const { return next_step_ < next_ + window_; }
  void Push(int64_t bytes, Payload payload);

  // The batch that may be sent now, or null. Valid until the next change.
  const Kept* NextToSend() const;
  // It is on its way.
  void BeginSend();

  // All of it has been sent on the newest stream, or its step has ended.
  bool all_sent() const;
  // Forgets all that is kept: it is of no use any more.
  void Clear();

  // ---- What is known

  bool open() const { return open_; }
  uint64_t incarnation() const { return incarnation_; }
  uint64_t epoch() const { return epoch_; }
  int64_t next() const { return next_; }
  int64_t durable() const { return durable_; }
  int64_t open_through() const { return open_through_; }
  int64_t window() const { return window_; }
  // The run of missed steps that holds `step`, or null.
  const Run* FindMissed(int64_t step) const;
  const std::vector<Run>& missed() const { return missed_; }
  const std::vector<Kept>& kept() const { return kept_; }
  // Of all that is kept.
  int64_t bytes() const { return bytes_; }

  bool operator==(const ReplayBuffer&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const ReplayBuffer& b) {
    return H::combine(std::move(h), b.incarnation_, b.epoch_, b.open_, b.next_, b.durable_,
                      b.open_through_, b.held_from_, b.pressed_, b.window_, b.next_step_,
                      b.send_next_, b.missed_, b.kept_);
  }

 private:
  void Advance(const Progress& progress);
  void AddMissed(const Run& run);
  void Free();
  template <typename Predicate>
  void Drop(Predicate predicate);

  uint64_t incarnation_ = 0;  // 0 before the first `opened`
  uint64_t epoch_ = 0;
  bool open_ = false;  // on the newest stream
  int64_t next_ = 0;
  int64_t durable_ = 0;
  int64_t open_through_ = 0;
  int64_t held_from_ = 0;  // the lowest step that waits for room; 0 if none does
  // Since a hold, until the whole window is open: beyond what is open goes one batch at a time,
  // which asks for the next room, as the others would come for nothing.
  bool pressed_ = false;
  int64_t window_ = 0;
  int64_t next_step_ = 0;
  int64_t send_next_ = 0;    // what is kept below it needs no sending
  std::vector<Run> missed_;  // ascending, disjoint
  std::vector<Kept> kept_;   // ascending
  int64_t bytes_ = 0;
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_REPLAY_BUFFER_H_
