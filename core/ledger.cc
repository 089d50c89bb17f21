#include "core/ledger.h"

#include <algorithm>
#include <utility>

namespace fisherd::core {

bool StepRun::Counted(int tower) const {
  return std::binary_search(counted.begin(), counted.end(), tower);
}

void Ledger::Record(StepOutcome outcome, std::vector<int> counted) {
  const int64_t step = next_++;
  steps_failed_ += outcome == StepOutcome::kFailed;
  steps_partial_ += outcome == StepOutcome::kPartial;
  StepRun run{step, step, outcome, std::move(counted)};
  if (const StepRun* before = Find(step); before != nullptr) {
    if (before->outcome == outcome && before->counted == run.counted) return;
    ++steps_lost_;
    // The step leaves its run, which is thereby cut in up to two.
    const StepRun cut = *before;
    std::erase(runs_, cut);
    if (cut.first < step) Add({cut.first, step - 1, cut.outcome, cut.counted});
    if (cut.last > step) Add({step + 1, cut.last, cut.outcome, cut.counted});
  }
  if (outcome != StepOutcome::kWhole) Add(std::move(run));
}

void Ledger::Add(StepRun run) {
  const auto after = std::lower_bound(runs_.begin(), runs_.end(), run.first,
                                      [](const StepRun& r, int64_t s) { return r.last < s; });
  if (after != runs_.begin()) {
    StepRun& before = *std::prev(after);
    if (before.last == run.first - 1 && before.outcome == run.outcome &&
        before.counted == run.counted) {
      before.last = run.last;
      return;
    }
  }
  runs_.insert(after, std::move(run));
  if (runs_.size() > max_runs_) {
    floor_ = runs_.front().last + 1;
    runs_.pop_front();
  }
}

const StepRun* Ledger::Find(int64_t step) const {
  const auto run = std::lower_bound(runs_.begin(), runs_.end(), step,
                                    [](const StepRun& r, int64_t s) { return r.last < s; });
  return run != runs_.end() && run->first <= step ? &*run : nullptr;
}

bool Ledger::Counted(int64_t step, int tower) const {
  const StepRun* run = Find(step);
  return run == nullptr || run->Counted(tower);
}

std::vector<StepRun> Ledger::Missed(int64_t from, int tower) const {
  std::vector<StepRun> result;
  for (const StepRun& run : runs_) {
    if (run.last < from || run.Counted(tower)) continue;
    result.push_back({std::max(run.first, from), run.last, run.outcome});
  }
  return result;
}

void Ledger::RollBack(int64_t next) {
  for (const StepRun& run : runs_) {
    const int64_t undone = std::min(run.last, next_ - 1) - std::max(run.first, next) + 1;
    if (undone <= 0) continue;
    (run.outcome == StepOutcome::kFailed ? steps_failed_ : steps_partial_) -= undone;
  }
  next_ = next;
}

}  // namespace fisherd::core
