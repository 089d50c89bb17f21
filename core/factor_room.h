// The factor's place in the budget of batches.

#ifndef FISHERD_CORE_FACTOR_ROOM_H_
#define FISHERD_CORE_FACTOR_ROOM_H_

#include <algorithm>

#include "core/factor.h"

namespace fisherd::core {

// Lives as long as one call into a StepGather.
class Factor::Room final : public StepRoom {
 public:
  explicit Room(Factor& factor) : factor_(factor), budget_(*factor.environment_.batch_budget) {}

  int64_t limit() const override {
    return std::min(budget_.limit(), factor_.environment_.factor_batch_limit);
  }
  bool Take(int64_t bytes) override { return budget_.Take(bytes); }
  bool TakeInTurn(int64_t bytes) override {
    return budget_.TakeInTurn(factor_.shared_from_this(), bytes);
  }
  void Leave() override { budget_.Leave(factor_.shared_from_this()); }
  void GiveBack(int64_t bytes) override { budget_.GiveBack(bytes); }

 private:
  Factor& factor_;
  ByteBudget& budget_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_ROOM_H_
