#include "core/tower_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(TowerPlanTest, KnowsEveryStepsTowers) {
  TowerPlan plan(2);
  plan.Set(5, 4);
  plan.Set(9, 1);
  EXPECT_EQ(plan.At(4), 2);
  EXPECT_EQ(plan.At(5), 4);
  EXPECT_EQ(plan.At(9), 1);
  EXPECT_EQ(plan.MostFrom(1), 4);
  EXPECT_EQ(plan.MostFrom(9), 1);
  EXPECT_EQ(plan.FirstOf(3, 1), 5);
  EXPECT_EQ(plan.FirstOf(3, 9), 0);
  EXPECT_THAT(plan.StepsWithout(3, 2, 20), ElementsAre(std::pair(2, 4), std::pair(9, 20)));
  EXPECT_THAT(plan.StepsWithout(0, 1, 20), IsEmpty());
  plan.Set(7, 3);
  EXPECT_EQ(plan.At(9), 3) << "what was said of later steps falls";
  plan.Forget(6);
  EXPECT_EQ(plan.At(6), 4);
}

}  // namespace
}  // namespace fisherd::core
