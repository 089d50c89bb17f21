// What has become of a factor's steps: the memory that makes sending a batch twice harmless.

#ifndef FISHERD_CORE_LEDGER_H_
#define FISHERD_CORE_LEDGER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
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
  // All that a ledger is, to be saved and brought back.
  struct Content {
    int64_t next = 1;
    int64_t floor = 1;
    int64_t steps_failed = 0;
    int64_t steps_partial = 0;
    int64_t steps_lost = 0;
    std::deque<StepRun> runs = {};  // ascending
    bool operator==(const Content&) const = default;
  };

  // Remembers up to `max_runs` (≥ 1) runs.
  explicit Ledger(size_t max_runs = kMaxRuns) : max_runs_(max_runs) {}
  explicit Ledger(Content content) : content_(std::move(content)) {}

  const Content& content() const { return content_; }

  // The lowest step that has not ended.
  int64_t next() const { return content_.next; }
  // Steps in the state; PARTIAL ones among them.
  int64_t steps_committed() const { return content_.next - 1 - content_.steps_failed; }
  int64_t steps_failed() const { return content_.steps_failed; }
  int64_t steps_partial() const { return content_.steps_partial; }
  // Steps that a recorded outcome said to be something, and that ended as something less.
  int64_t steps_lost() const { return content_.steps_lost; }
  // Outcomes of steps below it are forgotten.
  int64_t floor() const { return content_.floor; }

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

  // After a restart: of steps from next() on, an outcome that was recorded before it.
  void Remember(const StepRun& run);

 private:
  static constexpr size_t kMaxRuns = 4096;

  void Add(StepRun run);
  void Forget(int64_t step);

  size_t max_runs_ = kMaxRuns;
  Content content_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_LEDGER_H_
