// What is too large to be searched through: random walks with everything that may go wrong.

#include "tests/model/runs.h"

namespace fisherd::model {
namespace {

constexpr int kUsual = 1'000'000;
constexpr int kMany = 15'000'000;

Config ThreeTowers() {
  return {.towers = 3,
          .most_towers = 3,
          .steps = 3,
          .budget = 6,
          .late_notices = true,
          .adversity = {.cuts = 2, .crashes = 2, .timeouts = 2}};
}

TEST(Walks, ThreeTowers) {
  Config config = ThreeTowers();
  ExpectWalksHold(config, kUsual, kMany);
  config.policy = core::GatherPolicy::kPartial;
  ExpectWalksHold(config, kUsual, kMany);
}

TEST(Walks, TrainersDieAndDrop) {
  Config config = ThreeTowers();
  config.adversity.deaths = 1;
  config.adversity.drops = 2;
  ExpectWalksHold(config, kUsual, kMany);
  config.policy = core::GatherPolicy::kPartial;
  ExpectWalksHold(config, kUsual, kMany);
}

TEST(Walks, Asynchronous) {
  Config config = ThreeTowers();
  config.asynchronous = true;
  config.budget = 3;
  config.adversity.deaths = 1;
  ExpectWalksHold(config, kUsual, kMany);
}

TEST(Walks, MoreTowersAndReset) {
  Config config = ThreeTowers();
  config.towers = 2;
  config.adversity.tower_changes = 1;
  ExpectWalksHold(config, kUsual, kMany);
  config.towers = 3;
  config.adversity.tower_changes = 0;
  config.adversity.resets = 1;
  ExpectWalksHold(config, kUsual, kMany);
}

TEST(Walks, TwoClaimantsOfOneTower) {
  Config config = ThreeTowers();
  config.towers = config.most_towers = 2;
  config.rivals = 1;
  config.adversity.take_overs = 1;
  config.adversity.deaths = 1;
  ExpectWalksHold(config, kUsual, kMany);
}

}  // namespace
}  // namespace fisherd::model
