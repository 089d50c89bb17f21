// Decides which batches may come in, which steps have room, and when a step has what it takes.

#ifndef FISHERD_CORE_STEP_GATHER_H_
#define FISHERD_CORE_STEP_GATHER_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/batch_header.h"
#include "core/factor_spec.h"
#include "core/ledger.h"
#include "core/tower_plan.h"

namespace fisherd::core {

// OUT_OF_RANGE unless 0 ≤ tower < towers.
absl::Status CheckTower(int tower, int towers);

// Where the steps of one factor get their memory from.
class StepRoom {
 public:
  virtual ~StepRoom() = default;
  // The most bytes that the steps of this factor may hold together.
  virtual int64_t limit() const = 0;
  // For a step that is open: all of `bytes` or nothing, whoever waits.
  virtual bool Take(int64_t bytes) = 0;
  // For a step that is to open: if false, the factor waits for its turn, once.
  virtual bool TakeInTurn(int64_t bytes) = 0;
  // It waits no more.
  virtual void Leave() = 0;
  virtual void GiveBack(int64_t bytes) = 0;
};

// The steps next … next + window − 1 of one incarnation: which of them are open, that is have room
// for the batches of all their towers, and which batches they have. A pure state machine: no clock,
// threads or I/O; it never sees elements. A value: copies are independent. Not thread-safe.
//
// A batch of (step, tower) is absent, arriving, or whole. Begin admits it under a ticket; Complete
// or Abandon end the arrival. A ticket goes stale when its batch is dropped, and is then refused.
// A tower's batches come in order: of no step is one here while one of the step before is absent.
//
// Steps open in order, each with T × the largest batch that the factor was ever sent, so that a
// batch of an open step is always admitted. A larger one takes more, if need be by closing the
// youngest open steps, its own last: their batches are dropped and put on hold.
class StepGather {
 public:
  StepGather(int towers, int window);
  // After a restart: nothing is open yet.
  StepGather(const TowerPlan& plan, int window, int64_t next);

  using Ticket = uint64_t;
  struct Offer {
    int64_t step = 0;
    int tower = 0;
    int64_t bytes = 0;  // that it will hold
    StepParameters parameters;
    Digest digest{};
  };
  enum class Admission {
    kAdmitted,  // under `ticket`
    kHeld,      // the same batch is whole here already: to be read and discarded
    kOnHold,    // there is no room: to be read and discarded, and sent again when its step opens
    kLate,      // its step ends without it: to be read and discarded, and told when it has ended
  };
  struct Answer {
    Admission admission = Admission::kAdmitted;
    Ticket ticket = 0;
  };
  // The tower's batches from `step` on were dropped.
  struct Hold {
    int tower = 0;
    int64_t step = 0;
    bool operator==(const Hold&) const = default;
  };

  // Asks to send a batch of a step that has not ended (step ≥ next()). `ledger` knows of recorded
  // outcomes, of which a tower that did not count is not waited for. `holds` gets the batches of
  // other towers that had to go for it.
  //   OUT_OF_RANGE        the step has no such tower; BEYOND_WINDOW: step ≥ next + window;
  //                       STEP_OUT_OF_ORDER: the tower's batch of the step before is absent
  //   INVALID_ARGUMENT    STEP_PARAMETERS_DIFFER from those of the step's other towers;
  //   IDENTITY_REUSED:
  //                       a batch of this identity with another digest is here or on its way
  //   RESOURCE_EXHAUSTED  BATCH_BUDGET: such batches of all towers would never fit
  //   ABORTED             the same batch is on its way already
  absl::StatusOr<Answer> Begin(const Offer& offer, const Ledger& ledger, StepRoom& room,
                               std::vector<Hold>& holds);

  // The arriving batch is whole, or gone. False if the ticket is stale.
  bool Complete(int64_t step, int tower, Ticket ticket);
  bool Abandon(int64_t step, int tower, Ticket ticket);

  // Someone feeds the tower: `from` is the lowest step that he can send (so the tower is missing in
  // those before), `through` the highest that he was given.
  void OpenTower(int tower, int64_t from, int64_t through);
  // Forgets the tower's batches of all open steps, except those of a step that is committing.
  // Returns the steps of which it was whole.
  std::vector<int64_t> ClearTower(int tower);

  // The factor's turn has come: opens the steps that were asked for, as far as there is room. True
  // if one has opened.
  bool OpenWaiting(StepRoom& room);
  // Closes the youngest open steps as long as they have no batch. Whoever holds a batch back for
  // one still wants it: OpenWaiting, after others.
  void CloseEmpty(StepRoom& room);

  enum class Verdict { kWait, kWhole, kPartial, kFailed };
  // What becomes of step next() now. It waits for towers whose batch is neither whole nor missing;
  // not if its time is over (`expired`). A `recorded` outcome (null: none) was told before a
  // rollback, and comes again: over the same towers, unless its time is over.
  Verdict Decide(GatherPolicy policy, bool expired, const StepRun* recorded) const;
  // The clock of next() runs: a batch of it has been admitted, or of a later step, which waits for
  // it (after a restart, and from towers that begin later; there may never be one of next()).
  bool ClockRuns() const;

  // The towers whose batches of step next() are whole, ascending.
  std::vector<int> WholeTowers() const;
  // Step next() is about to end: from here on its batches cannot be dropped, and none is admitted.
  void BeginEnd() { committing_ = true; }
  // What its towers sent; it must have a batch.
  const StepParameters& parameters() const { return open_.front().parameters; }
  // Step next() has ended: its room is given back.
  void EndStep(StepRoom& room);

  // From the first step that is not open on (`now`: from the first that is not committing; the
  // batches of open ones are dropped, which `holds` tells), `towers` make a step. Returns that
  // step.
  int64_t SetTowers(int towers, bool now, StepRoom& room, std::vector<Hold>& holds);

  // Drops everything and gives its room back.
  void CloseAll(StepRoom& room);

  const TowerPlan& plan() const { return plan_; }
  int window() const { return window_; }
  int64_t next() const { return next_; }
  int64_t open_through() const { return next_ - 1 + static_cast<int64_t>(open_.size()); }
  bool committing() const { return committing_; }
  // Somebody has sent a batch of a step that was not open, and is not open now.
  bool wants_room() const { return wanted_ > open_through(); }
  // The highest step of which `tower` is whole, with all before it; next() − 1 if none.
  int64_t ReceivedThrough(int tower) const;
  // Every tower of step next() has been opened, and was given steps through `step` at least.
  bool AllGiven(int64_t step) const;
  // Batches that are whole or arriving, and the bytes that open steps have reserved.
  int BatchesHeld() const;
  int64_t bytes() const { return bytes_; }

  // Equal for states that behave alike, but for the numbers of their tickets.
  std::string Fingerprint() const;

 private:
  enum class Arrival : uint8_t { kAbsent, kArriving, kWhole };
  struct Slot {
    Arrival arrival = Arrival::kAbsent;
    Ticket ticket = 0;
    Digest digest{};
  };
  struct Step {
    std::vector<Slot> slots;  // by tower
    int64_t bytes = 0;        // reserved
    int64_t share = 0;        // of it for each tower
    int present = 0;          // arriving or whole
    int whole = 0;
    StepParameters parameters;  // meaningful while present > 0
  };
  struct Tower {
    bool opened = false;
    int64_t from = 0;
    int64_t through = 0;
    // Was told to hold these steps, and has not sent the first, or the last, again; or 0.
    int64_t held_from = 0;
    int64_t held_through = 0;
  };

  absl::Status CheckOffer(const Offer& offer, const StepRoom& room) const;
  int64_t ExpectedFrom(int tower, const Ledger& ledger) const;
  absl::Status CheckHeld(const Slot& slot, const Digest& digest) const;
  bool IsOpen(int64_t step) const { return step >= next_ && step <= open_through(); }
  Slot* Find(int64_t step, int tower, Ticket ticket);
  void Clear(Step& step, Slot& slot);
  void PutOnHold(Tower& tower, int64_t step);
  bool OpenThrough(int64_t step, StepRoom& room);
  bool Widen(int64_t step, int64_t share, StepRoom& room, std::vector<Hold>& holds);
  void CloseYoungest(StepRoom& room, std::vector<Hold>& holds);
  bool Missing(int tower) const;

  TowerPlan plan_;
  int window_;
  int64_t next_ = 1;
  bool committing_ = false;
  Ticket last_ticket_ = 0;
  int64_t share_ = 0;      // the largest batch ever sent
  int64_t wanted_ = 0;     // the highest step that a batch was put on hold for
  int64_t bytes_ = 0;      // of all open steps
  std::deque<Step> open_;  // open_[i] is step next_ + i
  std::vector<Tower> towers_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_STEP_GATHER_H_
