// Exactly once over cuts, crashes and timeouts: all states of two towers and two steps.

#include "tests/model/runs.h"

namespace fisherd::model {
namespace {

Config Replay(core::GatherPolicy policy) {
  return {.budget = 4,
          .policy = policy,
          .two_halves = false,  // those that are cut in two: TwoHalves
          .send_at_once = true,
          .alike = true,
          .adversity = {.cuts = 1, .crashes = 1, .timeouts = 1}};
}

TEST(Replay, Fail) { ExpectHolds(Replay(core::GatherPolicy::kFail)); }

TEST(Replay, Partial) { ExpectHolds(Replay(core::GatherPolicy::kPartial)); }

TEST(Replay, TwoHalves) {
  for (const auto policy : {core::GatherPolicy::kFail, core::GatherPolicy::kPartial}) {
    Config config = Replay(policy);
    config.two_halves = true;
    config.adversity = {.cuts = 1, .timeouts = 1};
    ExpectHolds(config);
  }
}

}  // namespace
}  // namespace fisherd::model
