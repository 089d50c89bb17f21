#include "client/trainer/method.h"

#include <algorithm>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

TEST(MethodTest, EveryGridHasAsManyTrialsAndHoldsTheTunedOneInside) {
  const std::vector<Method> tuned = TunedMethods();
  const std::vector<std::vector<Method>> grids = Grids();
  ASSERT_EQ(grids.size(), tuned.size());
  for (size_t i = 0; i < grids.size(); ++i) {
    EXPECT_EQ(grids[i].size(), 12) << tuned[i].name;
    std::set<std::string> settings;
    double least = 1e9, most = 0;
    for (const Method& method : grids[i]) {
      EXPECT_EQ(method.name, tuned[i].name);
      settings.insert(Settings(method));
      least = std::min(least, method.learning_rate);
      most = std::max(most, method.learning_rate);
    }
    EXPECT_EQ(settings.size(), 12) << "a trial is there twice";
    EXPECT_TRUE(settings.contains(Settings(tuned[i]))) << Settings(tuned[i]);
    // At the edge of its grid a rate would not be a tuned one.
    EXPECT_LT(least, tuned[i].learning_rate) << tuned[i].name;
    EXPECT_GT(most, tuned[i].learning_rate) << tuned[i].name;
  }
}

TEST(MethodTest, SettingsNameWhatIsSet) {
  EXPECT_EQ(Settings({.learning_rate = 0.5}), "rate 0.5");
  EXPECT_EQ(Settings({.learning_rate = 0.5, .momentum = 0.9, .curvature = Curvature{-1, 0.01}}),
            "rate 0.5, momentum 0.9, damping 0.01");
}

TEST(MethodTest, OptimizersAreThoseNamed) {
  const Layers gradients = {Matrix::Constant(1, 1, 4)};
  Layers parameters = {Matrix::Zero(1, 1)};
  MakeOptimizer({.learning_rate = 0.5})->Step(gradients, parameters);
  EXPECT_FLOAT_EQ(parameters[0](0, 0), -2);
  MakeOptimizer({.adam = true, .learning_rate = 0.5})->Step(gradients, parameters);
  EXPECT_FLOAT_EQ(parameters[0](0, 0), -2.5);
}

}  // namespace
}  // namespace fisherd::trainer
