#include "core/ledger.h"

#include <algorithm>
#include <utility>

namespace fisherd::core {

bool StepRun::Counted(int tower) const {
  return std::binary_search(counted.begin(), counted.end(), tower);
}

void Ledger::Record(StepOutcome outcome, std::vector<int> counted) {
  const int64_t step = content_.next++;
  content_.steps_failed += outcome == StepOutcome::kFailed;
  content_.steps_partial += outcome == StepOutcome::kPartial;
  StepRun run{step, step, outcome, std::move(counted)};
  if (const StepRun* before = Find(step); before != nullptr) {
    if (before->outcome == outcome && before->counted == run.counted) return;
    ++content_.steps_lost;
    Forget(step);
  }
  if (outcome != StepOutcome::kWhole) Add(std::move(run));
}

// The step leaves its run, which is thereby cut in up to two.
void Ledger::Forget(int64_t step) {
  const StepRun* const run = Find(step);
  if (run == nullptr) return;
  const StepRun cut = *run;
  std::erase(content_.runs, cut);
  if (cut.first < step) Add({cut.first, step - 1, cut.outcome, cut.counted});
  if (cut.last > step) Add({step + 1, cut.last, cut.outcome, cut.counted});
}

void Ledger::Remember(const StepRun& run) {
  for (int64_t step = run.first; step <= run.last; ++step) Forget(step);
  if (run.outcome != StepOutcome::kWhole) Add(run);
}

void Ledger::Add(StepRun run) {
  const auto after = std::lower_bound(content_.runs.begin(), content_.runs.end(), run.first,
                                      [](const StepRun& r, int64_t s) { return r.last < s; });
  if (after != content_.runs.begin()) {
    StepRun& before = *std::prev(after);
    if (before.last == run.first - 1 && before.outcome == run.outcome &&
        before.counted == run.counted) {
      before.last = run.last;
      return;
    }
  }
  content_.runs.insert(after, std::move(run));
  if (content_.runs.size() > max_runs_) {
    content_.floor = content_.runs.front().last + 1;
    content_.runs.pop_front();
  }
}

const StepRun* Ledger::Find(int64_t step) const {
  const auto run = std::lower_bound(content_.runs.begin(), content_.runs.end(), step,
                                    [](const StepRun& r, int64_t s) { return r.last < s; });
  return run != content_.runs.end() && run->first <= step ? &*run : nullptr;
}

bool Ledger::Counted(int64_t step, int tower) const {
  const StepRun* run = Find(step);
  return run == nullptr || run->Counted(tower);
}

std::vector<StepRun> Ledger::Missed(int64_t from, int tower) const {
  std::vector<StepRun> result;
  for (const StepRun& run : content_.runs) {
    if (run.last < from || run.Counted(tower)) continue;
    result.push_back({std::max(run.first, from), run.last, run.outcome});
  }
  return result;
}

void Ledger::RollBack(int64_t next) {
  for (const StepRun& run : content_.runs) {
    const int64_t undone = std::min(run.last, content_.next - 1) - std::max(run.first, next) + 1;
    if (undone <= 0) continue;
    (run.outcome == StepOutcome::kFailed ? content_.steps_failed : content_.steps_partial) -=
        undone;
  }
  content_.next = next;
}

}  // namespace fisherd::core
