// Room for the batches of open steps: two factors that share a budget of one step, whose second
// steps are larger than what their first have reserved.

#include "tests/model/runs.h"

namespace fisherd::model {
namespace {

int64_t Unequal(int, int step, int tower) { return step == 2 && tower == 1 ? 2 : 1; }

Config Admission(int steps) {
  return {.factors = 2,
          .steps = steps,
          .budget = 4,
          .bytes = Unequal,
          .two_halves = false,
          .send_at_once = true,
          .in_turn = true,
          .opened = true};
}

TEST(Admission, TwoSteps) { ExpectHolds(Admission(2)); }

TEST(Admission, OneStepInAnyOrderWithACut) {
  Config config = Admission(1);
  config.in_turn = false;
  config.budget = 2;
  config.adversity.cuts = 1;
  ExpectHolds(config);
}

// Cuts, timeouts, batches that wait with the client, and late notices.
TEST(Admission, Walks) {
  Config config = Admission(2);
  config.two_halves = true;
  config.send_at_once = config.in_turn = config.opened = false;
  config.late_notices = true;
  config.adversity.cuts = 1;
  ExpectWalksHold(config, 1'000'000, 20'000'000);
  config.adversity.timeouts = 1;
  ExpectWalksHold(config, 1'000'000, 20'000'000);
}

}  // namespace
}  // namespace fisherd::model
