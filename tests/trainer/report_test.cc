#include "client/trainer/report.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

RunResult SomeRun() {
  RunResult run;
  run.method = {.name = "fisherd^-1",
                .learning_rate = 0.01,
                .momentum = 0.9,
                .curvature = Curvature{-1, 0.003}};
  for (int i = 0; i <= 30; ++i) {
    run.epochs.push_back({.train = {1.0 / (i + 1), 0.5}, .test = {1, 0.9 + i / 1000.0}});
  }
  run.steps = 330;
  run.seconds_per_step = 0.005;
  run.seconds_in_rpc = 0.002;
  run.proof = {{"layer0", {2e-7, 384, 0}, 0.01}, {"layer1", {3e-7, 0, 0}, 0.02}};
  return run;
}

TEST(ReportTest, TableShowsWhatWasMeasured) {
  RunResult diverged;
  diverged.method.name = "SGD";
  diverged.epochs.resize(2);
  diverged.diverged = true;
  const std::string table = ResultTable(std::vector<RunResult>{diverged, SomeRun()});
  EXPECT_THAT(table, ContainsRegex("  +SGD +fisherd\\^-1\n"));
  EXPECT_THAT(table, ContainsRegex("damping +- +0.003\n"));
  EXPECT_THAT(table, ContainsRegex("\n  0 +0 +0.0 % +1 +90.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("\n  10 +diverged +0.091 +91.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("\n  30 +diverged +0.032 +93.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("per step +0.00 ms +5.00 ms\n"));
  EXPECT_THAT(table, ContainsRegex("in all +0.00 s +1.65 s\n"));
  EXPECT_THAT(table, ContainsRegex("in RPC +- +40 %\n"));
}

TEST(ReportTest, ProofSaysTheNumbers) {
  std::vector<RunResult> runs = {RunResult{}, SomeRun()};
  const std::string text = ProofText(runs);
  EXPECT_THAT(text, HasSubstr("  Yes. "));
  EXPECT_THAT(text, ContainsRegex("layer0 +2.0e-07 +384, all 0\n"));
  EXPECT_THAT(text, ContainsRegex("layer1 +3.0e-07 +-\n"));
  EXPECT_THAT(text, HasSubstr("made the trace of layer0 100 times too small"));
  runs[1].proof[0].comparison.dark_not_zero = 5;
  EXPECT_THAT(ProofText(runs), HasSubstr("  NO. "));
  EXPECT_THAT(ProofText(runs), ContainsRegex("layer0 +2.0e-07 +384, 5 NOT 0\n"));
  EXPECT_THAT(ProofText({}), HasSubstr("  NO. "));
}

TEST(ReportTest, ProvenOnlyIfEveryLayerIs) {
  std::vector<RunResult> runs = {RunResult{}};
  EXPECT_FALSE(Proven(runs)) << "nothing was compared";
  runs.push_back(SomeRun());
  EXPECT_TRUE(Proven(runs));
  runs[1].proof[1].comparison.largest_difference = 1.1e-5;
  EXPECT_FALSE(Proven(runs));
  runs[1] = SomeRun();
  runs[1].proof[0].comparison.dark_not_zero = 1;
  EXPECT_FALSE(Proven(runs));
}

}  // namespace
}  // namespace fisherd::trainer
