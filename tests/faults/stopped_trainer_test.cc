// One trainer is stopped: the others go on, and what it sends when it wakes changes nothing that
// has ended.

#include "tests/faults/stopped_trainer.h"

#include <gtest/gtest.h>

#include "tests/faults/fault_test.h"

namespace fisherd::faults {
namespace {

class StoppedTrainerTest : public FaultTest,
                           public testing::WithParamInterface<v1::GatherPolicy> {};

TEST_P(StoppedTrainerTest, TheOthersGetTheirAnswerAndItIsLate) {
  const bool partial = GetParam() == v1::GATHER_POLICY_PARTIAL;
  const Training training = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 30};
  StartServer();
  FactorOptions options = Accumulating(training.towers);
  options.gather_policy = GetParam();
  options.gather_timeout = absl::Milliseconds(100);
  Create(training, options);
  // It runs ahead, as far as its window: it waits for tower 0 in the midst of its work.
  TrainerProcess process(port(), "f", 1, training.steps);
  Tower quick(training, "f", 0, port());
  quick.WriteThrough(5);
  quick.writer().WaitEnded(5).IgnoreError();
  process.Stop();
  quick.WriteThrough(20);
  // What it had sent ahead counts; from there on the steps end at their timeouts.
  quick.writer().WaitEnded(20).IgnoreError();
  const v1::FactorInfo stopped = Describe("f");
  EXPECT_EQ(stopped.next(), 21);
  EXPECT_EQ(stopped.held_batches(), 0);
  const Matrix<double> before = ReadCovariance("f");
  process.Wake();
  quick.WriteThrough(training.steps);
  const auto of_quick = Counted({&quick}, training.steps);
  const std::vector<int64_t> of_process = process.Wait();

  // Whatever was told, what it sent late is not in the sum; nor was it when the steps had ended.
  std::vector<std::vector<int>> counted = of_quick;
  for (const int64_t step : of_process) {
    EXPECT_FALSE(of_quick[static_cast<size_t>(step - 1)].empty()) << step;
    counted[static_cast<size_t>(step - 1)].push_back(1);
  }
  const auto sums = Sums(training.layer, "f", counted);
  EXPECT_EQ(before, sums[20]);
  EXPECT_EQ(ReadCovariance("f"), sums.back());
  const v1::FactorInfo info = Describe("f");
  EXPECT_EQ(info.next(), training.steps + 1);
  // It had written up to its window, when step 5 had ended.
  const int64_t without = 20 - 5 - info.spec().window();
  EXPECT_GE(partial ? info.steps_partial() : info.steps_failed(), without);
  EXPECT_EQ(info.steps_committed() - info.steps_partial(), std::ssize(of_process));
}

INSTANTIATE_TEST_SUITE_P(Policies, StoppedTrainerTest,
                         testing::Values(v1::GATHER_POLICY_PARTIAL, v1::GATHER_POLICY_FAIL),
                         [](const auto& info) {
                           return info.param == v1::GATHER_POLICY_PARTIAL ? "Partial" : "Fail";
                         });

}  // namespace
}  // namespace fisherd::faults
