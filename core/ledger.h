// What has become of a factor's steps: the memory that makes sending a batch twice harmless.

#ifndef FISHERD_CORE_LEDGER_H_
#define FISHERD_CORE_LEDGER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "core/commit_record.h"

namespace fisherd::core {

// Consecutive steps with one outcome, not whole.
struct StepRun {
  int64_t first = 0;
  int64_t last = 0;
  StepOutcome outcome = StepOutcome::kFailed;
  std::vector<int> counted = {};  // PARTIAL: the towers that counted, ascending

  bool Counted(int tower) const;
  bool operator==(const StepRun&) const = default;
};

// One incarnation's steps, ended (1 … next − 1) or recorded before a rollback. A pure state
// machine: no clock, threads or I/O. Keeps only the steps that were not whole, as runs; when these
// are too many the oldest go and `floor` rises.
class Ledger {
 public:
  // Remembers up to `max_runs` (≥ 1) runs.
  explicit Ledger(size_t max_runs = 4096) : max_runs_(max_runs) {}

  // The lowest step that has not ended.
  int64_t next() const { return next_; }
  // Steps in the state; PARTIAL ones among them.
  int64_t steps_committed() const { return next_ - 1 - steps_failed_; }
  int64_t steps_failed() const { return steps_failed_; }
  int64_t steps_partial() const { return steps_partial_; }
  // Steps that a recorded outcome said to be something, and that ended as something less.
  int64_t steps_lost() const { return steps_lost_; }
  // Outcomes of steps below it are forgotten.
  int64_t floor() const { return floor_; }

  // Ends step next(). `counted` is for kPartial.
  void Record(StepOutcome outcome, std::vector<int> counted = {});

  // How `step` ended, or had ended before a rollback; null if it was whole, or is yet to end.
  const StepRun* Find(int64_t step) const;

  // Whether the tower's batch of an ended step counted; floor() ≤ step < next().
  bool Counted(int64_t step, int tower) const;

  // The runs from step `from` on in which the tower did not count, ascending; with those that a
  // rollback has brought back: they will end the same way again.
  std::vector<StepRun> Missed(int64_t from, int tower) const;

  // The state is back where `next` was the lowest step that had not ended. What was told of steps
  // that were not whole stays true: those keep their runs.
  void RollBack(int64_t next);

 private:
  void Add(StepRun run);

  size_t max_runs_;
  int64_t next_ = 1;
  int64_t floor_ = 1;
  int64_t steps_failed_ = 0;
  int64_t steps_partial_ = 0;
  int64_t steps_lost_ = 0;
  std::deque<StepRun> runs_;  // ascending
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_LEDGER_H_
