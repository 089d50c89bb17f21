#include "client/trainer/tuning.h"

#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

RunResult EndingWith(double loss) {
  RunResult run;
  run.epochs = {{.train = {5, 0}, .test = {}}, {.train = {loss, 0}, .test = {100, 0}}};
  return run;
}

TEST(TuningTest, ScoreIsTheLastTrainingLossOfTheWorstSeed) {
  EXPECT_EQ(Score(std::vector<RunResult>{EndingWith(0.001), EndingWith(0.1), EndingWith(0.01)}),
            0.1);
}

TEST(TuningTest, OneRunThatDivergedSpoilsATrial) {
  RunResult diverged = EndingWith(0.1);
  diverged.diverged = true;
  EXPECT_EQ(Score(std::vector<RunResult>{EndingWith(0.1), diverged}),
            std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace fisherd::trainer
