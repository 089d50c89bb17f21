// What has become of a factor's steps: the memory that makes sending a batch twice harmless.

#ifndef FISHERD_CORE_LEDGER_H_
#define FISHERD_CORE_LEDGER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "core/commit_record.h"

namespace fisherd::core {

// Consecutive steps with one outcome.
struct StepRun {
  int64_t first = 0;
  int64_t last = 0;
  StepOutcome outcome = StepOutcome::kFailed;

  bool operator==(const StepRun&) const = default;
};

// One incarnation's ended steps 1 … next − 1. A pure state machine: no clock, threads or I/O. Keeps
// only the steps that were not whole, as runs; when these are too many the oldest go and `floor`
// rises.
class Ledger {
 public:
  // Remembers up to `max_runs` (≥ 1) runs.
  explicit Ledger(size_t max_runs = 4096) : max_runs_(max_runs) {}

  // The lowest step that has not ended.
  int64_t next() const { return next_; }
  int64_t steps_committed() const { return next_ - 1 - steps_failed_; }
  int64_t steps_failed() const { return steps_failed_; }
  // Outcomes of steps below it are forgotten.
  int64_t floor() const { return floor_; }

  // Ends step next().
  void Record(StepOutcome outcome);

  // How `step` ended; floor() ≤ step < next().
  StepOutcome OutcomeOf(int64_t step) const;

  // The steps from `from` on that were not whole, ascending.
  std::vector<StepRun> NotWhole(int64_t from) const;

 private:
  size_t max_runs_;
  int64_t next_ = 1;
  int64_t floor_ = 1;
  int64_t steps_failed_ = 0;
  std::deque<StepRun> runs_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_LEDGER_H_
