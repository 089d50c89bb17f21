// Exactly once over cuts, crashes and timeouts: all states of a small factory of it.

#include <gtest/gtest.h>

#include <iostream>

#include "tests/model/explorer.h"
#include "tests/model/protocol_model.h"

namespace fisherd::model {
namespace {

Config Replay(core::GatherPolicy policy) {
  return {.policy = policy, .adversity = {.cuts = 1, .crashes = 1, .timeouts = 1}};
}

void ExpectHolds(const Config& config) {
  const ProtocolModel model(config);
  const Exploration result = Explorer(model).Explore(20'000'000);
  std::cout << ToString(result) << "\n";
  EXPECT_TRUE(result.ok()) << ToString(result);
}

TEST(Replay, Fail) { ExpectHolds(Replay(core::GatherPolicy::kFail)); }
TEST(Replay, Partial) { ExpectHolds(Replay(core::GatherPolicy::kPartial)); }

}  // namespace
}  // namespace fisherd::model
