#include "core/ledger.h"

#include <algorithm>

namespace fisherd::core {

void Ledger::Record(StepOutcome outcome) {
  const int64_t step = next_++;
  if (outcome == StepOutcome::kWhole) return;
  ++steps_failed_;
  if (!runs_.empty() && runs_.back().last == step - 1 && runs_.back().outcome == outcome) {
    runs_.back().last = step;
    return;
  }
  if (runs_.size() == max_runs_) {
    floor_ = runs_.front().last + 1;
    runs_.pop_front();
  }
  runs_.push_back({step, step, outcome});
}

StepOutcome Ledger::OutcomeOf(int64_t step) const {
  const auto run = std::lower_bound(runs_.begin(), runs_.end(), step,
                                    [](const StepRun& r, int64_t s) { return r.last < s; });
  return run != runs_.end() && run->first <= step ? run->outcome : StepOutcome::kWhole;
}

std::vector<StepRun> Ledger::NotWhole(int64_t from) const {
  std::vector<StepRun> result;
  for (const StepRun& run : runs_) {
    if (run.last < from) continue;
    result.push_back(run);
    result.back().first = std::max(run.first, from);
  }
  return result;
}

}  // namespace fisherd::core
