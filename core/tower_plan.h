// How many towers make a step.

#ifndef FISHERD_CORE_TOWER_PLAN_H_
#define FISHERD_CORE_TOWER_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace fisherd::core {

// A number from step 1 on, and what SetTowers has made of it since. A value; not thread-safe.
class TowerPlan {
 public:
  struct Change {
    int64_t from = 1;
    int towers = 1;
    bool operator==(const Change&) const = default;
  };

  explicit TowerPlan(int towers) : changes_{{1, towers}} {}
  // As changes() once said; at least one.
  explicit TowerPlan(std::deque<Change> changes) : changes_(std::move(changes)) {}

  int At(int64_t step) const;
  // The most of any step from `step` on.
  int MostFrom(int64_t step) const;
  // The lowest step from `step` on that the tower is of; 0 if there is none.
  int64_t FirstOf(int tower, int64_t step) const;
  // From `step` on, whatever was said of later ones.
  void Set(int64_t step, int towers);
  // The runs (first, last) of steps from `from` to `to` that the tower is not of, ascending.
  std::vector<std::pair<int64_t, int64_t>> StepsWithout(int tower, int64_t from, int64_t to) const;
  // Ascending; at least one.
  const std::deque<Change>& changes() const { return changes_; }
  // Steps below are not asked for any more.
  void Forget(int64_t below);

  bool operator==(const TowerPlan&) const = default;

 private:
  std::deque<Change> changes_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_TOWER_PLAN_H_
