// Decides which batches may come in and when a step is whole.

#ifndef FISHERD_CORE_STEP_GATHER_H_
#define FISHERD_CORE_STEP_GATHER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/batch_header.h"

namespace fisherd::core {

// OUT_OF_RANGE unless 0 ≤ tower < towers.
absl::Status CheckTower(int tower, int towers);

// The open steps next … next + window − 1 of one incarnation, and which towers' batches they have.
// A pure state machine: no clock, threads or I/O; it never sees elements. Not thread-safe.
//
// A batch of (step, tower) is absent, arriving, or whole. Begin admits it under a ticket; Complete
// or Abandon end the arrival. A ticket goes stale when its tower is cleared, and is then refused.
class StepGather {
 public:
  StepGather(int towers, int window);

  // 0 is no ticket: the same batch is whole already, so this one is to be read and discarded.
  using Ticket = uint64_t;

  // Asks to send a batch of a step that has not ended (step ≥ next()).
  //   OUT_OF_RANGE      tower not in [0, towers); BEYOND_WINDOW: step ≥ next + window
  //   INVALID_ARGUMENT  STEP_PARAMETERS_DIFFER from those of the step's other towers;
  //   IDENTITY_REUSED:
  //                     a batch of this identity with another digest is here or on its way
  //   ABORTED           the same batch is on its way already
  absl::StatusOr<Ticket> Begin(int64_t step, int tower, const StepParameters& parameters,
                               const Digest& digest);

  // The arriving batch is whole, or gone. False if the ticket is stale.
  bool Complete(int64_t step, int tower, Ticket ticket);
  bool Abandon(int64_t step, int tower, Ticket ticket);

  // Forgets the tower's batches of all open steps, except those of a step that is committing.
  // Returns the steps of which it was whole.
  std::vector<int64_t> ClearTower(int tower);

  // All towers of step next() are whole.
  bool NextIsWhole() const;
  // From here on the step's batches cannot be cleared. NextIsWhole() must hold.
  const StepParameters& BeginCommit();
  // Step next() has ended.
  void EndStep();

  int towers() const { return towers_; }
  int window() const { return window_; }
  int64_t next() const { return next_; }
  // The highest step of which `tower` is whole, with all before it; next() − 1 if none.
  int64_t ReceivedThrough(int tower) const;
  // A batch of the step is whole or arriving.
  bool IsOpen(int64_t step) const;
  // Batches that are whole or arriving, of all open steps.
  int BatchesHeld() const;

 private:
  enum class Arrival { kAbsent, kArriving, kWhole };
  struct Slot {
    Arrival arrival = Arrival::kAbsent;
    Ticket ticket = 0;
    Digest digest{};
  };
  struct Step {
    std::vector<Slot> slots;  // by tower
    int present = 0;          // arriving or whole
    int whole = 0;
    StepParameters parameters;  // meaningful while present > 0
  };

  Slot* Find(int64_t step, int tower, Ticket ticket);
  void Clear(Step& step, Slot& slot);

  int towers_;
  int window_;
  int64_t next_ = 1;
  bool committing_ = false;
  Ticket last_ticket_ = 0;
  std::deque<Step> steps_;  // steps_[i] is step next_ + i; grown on demand
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_STEP_GATHER_H_
