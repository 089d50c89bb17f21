#include "core/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kWhole = StepOutcome::kWhole;
constexpr auto kFailed = StepOutcome::kFailed;

TEST(LedgerTest, StartsBeforeStepOne) {
  const Ledger ledger;
  EXPECT_EQ(ledger.next(), 1);
  EXPECT_EQ(ledger.steps_committed(), 0);
  EXPECT_EQ(ledger.steps_failed(), 0);
  EXPECT_EQ(ledger.floor(), 1);
  EXPECT_THAT(ledger.NotWhole(1), IsEmpty());
}

TEST(LedgerTest, KeepsFailedStepsAsRuns) {
  Ledger ledger;
  for (const StepOutcome outcome : {kWhole, kFailed, kFailed, kWhole, kFailed}) {
    ledger.Record(outcome);
  }
  EXPECT_EQ(ledger.next(), 6);
  EXPECT_EQ(ledger.steps_committed(), 2);
  EXPECT_EQ(ledger.steps_failed(), 3);
  EXPECT_THAT(ledger.NotWhole(1), ElementsAre(StepRun{2, 3, kFailed}, StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.NotWhole(3), ElementsAre(StepRun{3, 3, kFailed}, StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.NotWhole(4), ElementsAre(StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.NotWhole(6), IsEmpty());
  EXPECT_EQ(ledger.OutcomeOf(1), kWhole);
  EXPECT_EQ(ledger.OutcomeOf(2), kFailed);
  EXPECT_EQ(ledger.OutcomeOf(3), kFailed);
  EXPECT_EQ(ledger.OutcomeOf(4), kWhole);
  EXPECT_EQ(ledger.OutcomeOf(5), kFailed);
}

TEST(LedgerTest, ForgetsTheOldestRunsAndSaysSo) {
  Ledger ledger(/*max_runs=*/2);
  for (const StepOutcome outcome : {kFailed, kFailed, kWhole, kFailed, kWhole}) {
    ledger.Record(outcome);
  }
  EXPECT_EQ(ledger.floor(), 1);
  ledger.Record(kFailed);  // the third run
  EXPECT_EQ(ledger.floor(), 3);
  EXPECT_THAT(ledger.NotWhole(1), ElementsAre(StepRun{4, 4, kFailed}, StepRun{6, 6, kFailed}));
  EXPECT_EQ(ledger.OutcomeOf(3), kWhole);
  EXPECT_EQ(ledger.steps_failed(), 4) << "counts do not forget";
}

}  // namespace
}  // namespace fisherd::core
