#include "core/tower_plan.h"

#include <algorithm>
#include <iterator>

namespace fisherd::core {

int TowerPlan::At(int64_t step) const {
  const auto after = std::find_if(std::next(changes_.begin()), changes_.end(),
                                  [&](const Change& change) { return change.from > step; });
  return std::prev(after)->towers;
}

int TowerPlan::MostFrom(int64_t step) const {
  int most = At(step);
  for (const Change& change : changes_) {
    if (change.from > step) most = std::max(most, change.towers);
  }
  return most;
}

int64_t TowerPlan::FirstOf(int tower, int64_t step) const {
  if (tower < At(step)) return step;
  for (const Change& change : changes_) {
    if (change.from > step && tower < change.towers) return change.from;
  }
  return 0;
}

void TowerPlan::Set(int64_t step, int towers) {
  while (changes_.size() > 1 && changes_.back().from >= step) changes_.pop_back();
  if (changes_.back().from >= step) {
    changes_.back().towers = towers;
  } else if (changes_.back().towers != towers) {
    changes_.push_back({step, towers});
  }
}

std::vector<std::pair<int64_t, int64_t>> TowerPlan::StepsWithout(int tower, int64_t from,
                                                                 int64_t to) const {
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (auto change = changes_.begin(); change != changes_.end(); ++change) {
    const int64_t first = std::max(change->from, from);
    const int64_t last = std::next(change) == changes_.end() ? to : std::next(change)->from - 1;
    if (tower >= change->towers && first <= std::min(last, to)) {
      runs.emplace_back(first, std::min(last, to));
    }
  }
  return runs;
}

void TowerPlan::Forget(int64_t below) {
  while (changes_.size() > 1 && changes_[1].from <= below) changes_.pop_front();
}

}  // namespace fisherd::core
