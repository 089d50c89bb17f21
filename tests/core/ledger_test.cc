#include "core/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kWhole = StepOutcome::kWhole;
constexpr auto kFailed = StepOutcome::kFailed;
constexpr auto kPartial = StepOutcome::kPartial;

TEST(LedgerTest, StartsBeforeStepOne) {
  const Ledger ledger;
  EXPECT_EQ(ledger.next(), 1);
  EXPECT_EQ(ledger.steps_committed(), 0);
  EXPECT_EQ(ledger.steps_failed(), 0);
  EXPECT_EQ(ledger.floor(), 1);
  EXPECT_THAT(ledger.Missed(1, 0), IsEmpty());
}

TEST(LedgerTest, KeepsFailedStepsAsRuns) {
  Ledger ledger;
  for (const StepOutcome outcome : {kWhole, kFailed, kFailed, kWhole, kFailed}) {
    ledger.Record(outcome);
  }
  EXPECT_EQ(ledger.next(), 6);
  EXPECT_EQ(ledger.steps_committed(), 2);
  EXPECT_EQ(ledger.steps_failed(), 3);
  EXPECT_THAT(ledger.Missed(1, 0), ElementsAre(StepRun{2, 3, kFailed}, StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.Missed(3, 0), ElementsAre(StepRun{3, 3, kFailed}, StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.Missed(4, 0), ElementsAre(StepRun{5, 5, kFailed}));
  EXPECT_THAT(ledger.Missed(6, 0), IsEmpty());
  EXPECT_EQ(ledger.Find(1), nullptr);
  EXPECT_EQ(ledger.Find(3)->outcome, kFailed);
  EXPECT_TRUE(ledger.Counted(4, 0));
  EXPECT_FALSE(ledger.Counted(5, 0));
}

TEST(LedgerTest, APartialStepCountedForSome) {
  Ledger ledger;
  ledger.Record(kPartial, {0, 2});
  ledger.Record(kPartial, {0, 2});
  ledger.Record(kPartial, {1});
  EXPECT_EQ(ledger.steps_partial(), 3);
  EXPECT_EQ(ledger.steps_committed(), 3);
  EXPECT_THAT(ledger.Missed(1, 1), ElementsAre(StepRun{1, 2, kPartial}));
  EXPECT_THAT(ledger.Missed(1, 2), ElementsAre(StepRun{3, 3, kPartial}));
  EXPECT_TRUE(ledger.Counted(2, 2));
  EXPECT_FALSE(ledger.Counted(2, 1));
}

TEST(LedgerTest, ARollbackKeepsWhatWasTold) {
  Ledger ledger;
  ledger.Record(kWhole);
  ledger.Record(kFailed);
  ledger.Record(kFailed);
  ledger.Record(kPartial, {0});
  ledger.RollBack(3);
  EXPECT_EQ(ledger.next(), 3);
  EXPECT_EQ(ledger.steps_failed(), 1);
  EXPECT_EQ(ledger.steps_partial(), 0);
  EXPECT_EQ(ledger.Find(4)->counted, std::vector<int>{0});
  EXPECT_THAT(ledger.Missed(1, 1), ElementsAre(StepRun{2, 3, kFailed}, StepRun{4, 4, kPartial}));
  ledger.Record(kFailed);
  ledger.Record(kPartial, {0});
  EXPECT_EQ(ledger.steps_lost(), 0);
  EXPECT_EQ(ledger.steps_failed(), 2);
  EXPECT_THAT(ledger.Missed(1, 1), ElementsAre(StepRun{2, 3, kFailed}, StepRun{4, 4, kPartial}))
      << "the same ends leave no other trace";
}

TEST(LedgerTest, ARecordThatCannotComeTrueIsReplacedAndCounted) {
  Ledger ledger;
  for (int i = 0; i < 3; ++i) ledger.Record(kPartial, {0, 1});
  ledger.RollBack(1);
  ledger.Record(kPartial, {0, 1});
  ledger.Record(kFailed);
  EXPECT_EQ(ledger.steps_lost(), 1);
  EXPECT_EQ(ledger.Find(1)->outcome, kPartial);
  EXPECT_EQ(ledger.Find(2)->outcome, kFailed);
  EXPECT_EQ(ledger.Find(3)->outcome, kPartial);
}

TEST(LedgerTest, ForgetsTheOldestRunsAndSaysSo) {
  Ledger ledger(/*max_runs=*/2);
  for (const StepOutcome outcome : {kFailed, kFailed, kWhole, kFailed, kWhole}) {
    ledger.Record(outcome);
  }
  EXPECT_EQ(ledger.floor(), 1);
  ledger.Record(kFailed);  // the third run
  EXPECT_EQ(ledger.floor(), 3);
  EXPECT_THAT(ledger.Missed(1, 0), ElementsAre(StepRun{4, 4, kFailed}, StepRun{6, 6, kFailed}));
  EXPECT_EQ(ledger.Find(3), nullptr);
  EXPECT_EQ(ledger.steps_failed(), 4) << "counts do not forget";
}

}  // namespace
}  // namespace fisherd::core
