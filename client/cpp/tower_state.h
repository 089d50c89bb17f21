// What one tower knows of its factor from the answers on the stream: the window, which steps have
// ended, which batches were refused. A pure state machine: no locks, no waiting, no I/O.

#ifndef FISHERD_CLIENT_TOWER_STATE_H_
#define FISHERD_CLIENT_TOWER_STATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd {

// Not thread-safe.
//
// After a refused step r the server refuses every later step that was on its way, because it does
// not follow on the tower's previous one. So at the refusal of r the steps written after it count
// as refused too, and the one refusal that each of them is still to get is taken for what it is,
// even if the step has been written again by then.
class TowerState {
 public:
  TowerState(std::string factor, int tower) : factor_(std::move(factor)), tower_(tower) {}

  // What the server says. Before `opened`, everything but the end is ignored; afterwards, progress
  // of another incarnation or epoch.
  void OnOpened(const v1::Progress& progress);
  void OnAck(const v1::Progress& progress);
  void OnRefused(int64_t step, const absl::Status& status);

  // Nothing more will come: the stream has ended, or the tower was opened anew, or not at all.
  // The first end counts.
  void End(const absl::Status& status);

  bool opened() const { return opened_; }
  bool ended() const { return !end_.ok(); }
  const absl::Status& end() const { return end_; }
  const v1::Progress& progress() const { return progress_; }

  // The step that is to be written next.
  int64_t next_step() const { return next_step_; }
  // Whether the window has room for it.
  bool has_room() const { return next_step_ < progress_.next() + progress_.window(); }

  // Takes the next step: it is on its way from now on.
  void BeginStep();

  // The refusal that next_step() went back for, once; OK if there is none to report.
  absl::Status TakeRefusal();

  // How a step ended: OK if it counted. nullopt while that is open.
  std::optional<absl::Status> Outcome(int64_t step);

 private:
  void AddMissed(const v1::Progress& progress);
  absl::Status Error(absl::StatusCode code, absl::string_view reason, int64_t step,
                     const std::string& message) const;

  const std::string factor_;
  const int tower_;
  bool opened_ = false;
  absl::Status end_;
  v1::Progress progress_;  // `missed` accumulates
  int64_t next_step_ = 0;
  bool refusal_unreported_ = false;          // that of next_step_
  std::map<int64_t, absl::Status> refused_;  // of steps not written again since
  std::map<int64_t, int> refusals_due_;      // by step, of batches that `refused_` foretold
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_TOWER_STATE_H_
