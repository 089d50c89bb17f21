#include "client/cpp/tower_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/cpp/errors.h"
#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

class TowerStateTest : public testing::Test {
 protected:
  TowerStateTest() { tower_.OnOpened(ProgressAt(5)); }

  void Write(int count) {
    for (int i = 0; i < count; ++i) {
      auto batch = std::make_shared<EncodedBatch>();
      batch->bytes = 10;
      tower_.Push(batch);
    }
  }
  absl::StatusCode CodeOf(int64_t step) {
    const auto outcome = tower_.Outcome(step);
    return outcome ? outcome->code() : absl::StatusCode::kUnknown;
  }
  static absl::Status Reason(const char* reason) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason, reason);
  }
  void Failed(int64_t first, int64_t last, v1::Progress& progress) {
    v1::StepRun& run = *progress.add_missed();
    run.set_first_step(first);
    run.set_last_step(last);
    run.set_outcome(v1::STEP_OUTCOME_FAILED);
  }

  TowerState tower_{"f", 0, false};
};

TEST(TowerStateUnopenedTest, NothingIsHeardBeforeOpened) {
  TowerState tower("f", 0, true);
  tower.OnAck(ProgressAt(9));
  tower.OnRefused(3, absl::InternalError("of an older writer"));
  EXPECT_FALSE(tower.opened());
  tower.OnOpened(ProgressAt(1));
  EXPECT_TRUE(tower.opened());
  EXPECT_EQ(tower.next_step(), 1);
  EXPECT_TRUE(tower.TakeRefusal().ok());
}

TEST_F(TowerStateTest, TheWindowCountsFromNext) {
  EXPECT_EQ(tower_.next_step(), 5);
  EXPECT_TRUE(tower_.has_room());
  Write(1);
  EXPECT_TRUE(tower_.has_room());
  Write(1);
  EXPECT_FALSE(tower_.has_room());  // 7 = next + window
  tower_.OnAck(ProgressAt(6));
  EXPECT_TRUE(tower_.has_room());
  EXPECT_EQ(tower_.next_step(), 7);
}

TEST_F(TowerStateTest, AnAckOfAnotherLifeIsIgnored) {
  Write(1);
  v1::Progress other = ProgressAt(9);
  other.set_incarnation(8);
  tower_.OnAck(other);
  other = ProgressAt(9);
  other.set_epoch(4);
  tower_.OnAck(other);
  EXPECT_EQ(tower_.progress().next(), 5);
  EXPECT_EQ(tower_.Outcome(5), std::nullopt);
}

TEST_F(TowerStateTest, AcksAreCumulativeAndNeverGoBack) {
  Write(2);
  tower_.OnAck(ProgressAt(7));
  tower_.OnAck(ProgressAt(6));
  EXPECT_EQ(tower_.progress().next(), 7);
  EXPECT_EQ(tower_.progress().durable(), 6);
  EXPECT_EQ(CodeOf(5), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(6), absl::StatusCode::kOk);
}

TEST_F(TowerStateTest, AFailedStepIsToldAndRunsAreJoined) {
  Write(2);
  v1::Progress ack = ProgressAt(6);
  Failed(5, 5, ack);
  tower_.OnAck(ack);
  ack = ProgressAt(7);
  Failed(6, 6, ack);
  tower_.OnAck(ack);
  EXPECT_EQ(tower_.progress().missed_size(), 1);
  EXPECT_EQ(tower_.progress().missed(0).last_step(), 6);
  const absl::Status outcome = *tower_.Outcome(6);
  EXPECT_EQ(outcome.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(outcome), "STEP_FAILED");
  EXPECT_THAT(std::string(outcome.message()), HasSubstr("factor \"f\", tower 0, step 6"));
  EXPECT_EQ(CodeOf(4), absl::StatusCode::kOk);
}

TEST_F(TowerStateTest, AStepThatWasNotWrittenHasNoOutcome) {
  EXPECT_EQ(CodeOf(5), absl::StatusCode::kOutOfRange);
  Write(1);
  EXPECT_EQ(tower_.Outcome(5), std::nullopt);
  EXPECT_EQ(CodeOf(6), absl::StatusCode::kOutOfRange);
}

TEST_F(TowerStateTest, ARefusalTakesBackTheStepsAfterIt) {
  Write(2);  // 5 and 6
  tower_.OnRefused(5, absl::InvalidArgumentError("NaN in inputs"));
  EXPECT_EQ(tower_.next_step(), 5);
  const absl::Status later = *tower_.Outcome(6);
  EXPECT_EQ(later.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ErrorReason(later), "STEP_OUT_OF_ORDER");
  EXPECT_THAT(std::string(later.message()), HasSubstr("after step 5, which was refused"));
  EXPECT_THAT(std::string(later.message()), HasSubstr("NaN in inputs"));
  EXPECT_EQ(tower_.TakeRefusal().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(tower_.TakeRefusal().ok()) << "reported once";
}

TEST_F(TowerStateTest, RefusalsAsOutOfOrderAreNotHeard) {
  Write(2);  // 5 and 6
  tower_.OnRefused(5, absl::InvalidArgumentError("NaN in inputs"));
  EXPECT_FALSE(tower_.TakeRefusal().ok());
  Write(2);                                          // 5 and 6 again
  tower_.OnRefused(6, Reason("STEP_OUT_OF_ORDER"));  // of the first 6
  EXPECT_EQ(tower_.next_step(), 7);
  EXPECT_TRUE(tower_.TakeRefusal().ok());
  EXPECT_EQ(tower_.Outcome(6), std::nullopt);
  tower_.OnRefused(6, absl::InvalidArgumentError("of the second 6"));
  EXPECT_EQ(tower_.next_step(), 6);
  EXPECT_EQ(tower_.TakeRefusal().message(), "of the second 6");
}

TEST_F(TowerStateTest, ALateBatchTakesNoOtherWithIt) {
  Write(2);
  tower_.OnRefused(5, Reason("STEP_LATE"));
  EXPECT_EQ(tower_.next_step(), 7);
  EXPECT_EQ(tower_.bytes(), 10);
  EXPECT_EQ(tower_.Outcome(5), std::nullopt) << "`missed` will say";
  v1::Progress ack = ProgressAt(6);
  Failed(5, 5, ack);
  tower_.OnAck(ack);
  EXPECT_EQ(CodeOf(5), absl::StatusCode::kFailedPrecondition);
  tower_.OnRefused(6, Reason("FORGOTTEN"));
  EXPECT_EQ(ErrorReason(*tower_.Outcome(6)), "FORGOTTEN");
}

TEST_F(TowerStateTest, AStepThatHasEndedIsSkippedAndSaidSo) {
  EXPECT_TRUE(tower_.SkipLateStep().ok());
  v1::Progress ack = ProgressAt(6);
  Failed(5, 5, ack);
  tower_.OnAck(ack);
  EXPECT_EQ(ErrorReason(tower_.SkipLateStep()), "STEP_LATE");
  EXPECT_EQ(tower_.next_step(), 6);
  EXPECT_TRUE(tower_.SkipLateStep().ok());
}

TEST_F(TowerStateTest, ALostTowerEnds) {
  for (const char* reason :
       {"OLD_INCARNATION", "TOWER_CLAIMED", "TOWER_NOT_OPEN", "FACTOR_NOT_FOUND"}) {
    TowerState tower("f", 0, false);
    tower.OnOpened(ProgressAt(5));
    tower.Push(std::make_shared<EncodedBatch>());
    tower.OnRefused(5, Reason(reason));
    EXPECT_TRUE(tower.ended()) << reason;
    EXPECT_TRUE(tower.all_sent());
  }
  tower_.OnRefused(0, absl::InternalError("of the tower"));
  EXPECT_EQ(tower_.end().message(), "of the tower");
}

TEST_F(TowerStateTest, AnotherIncarnationEndsTheTower) {
  Write(1);
  tower_.OnCut();
  v1::Progress other = ProgressAt(1);
  other.set_incarnation(8);
  tower_.OnOpened(other);
  EXPECT_EQ(ErrorReason(*tower_.Outcome(5)), "OLD_INCARNATION");
  EXPECT_EQ(tower_.bytes(), 0);
}

TEST(TowerStateOpenTest, TakesOverOnlyUntilItIsOpen) {
  TowerState tower("f", 2, /*take_over=*/true);
  v1::Open open = tower.MakeOpen();
  EXPECT_EQ(open.factor(), "f");
  EXPECT_EQ(open.tower(), 2);
  EXPECT_EQ(open.from(), 0);
  EXPECT_EQ(open.through(), 0);
  EXPECT_TRUE(open.take_over());
  tower.OnOpened(ProgressAt(5));
  tower.Push(std::make_shared<EncodedBatch>());
  open = tower.MakeOpen();
  EXPECT_EQ(open.from(), 5);
  EXPECT_EQ(open.through(), 5);
  EXPECT_FALSE(open.take_over());
}

TEST_F(TowerStateTest, CountsWhatItDoes) {
  Write(1);
  auto contribution = std::make_shared<EncodedBatch>();
  contribution->bytes = 7;
  contribution->form = v1::BATCH_FORM_CONTRIBUTION;
  tower_.Push(contribution);
  while (tower_.TakeToSend() != nullptr) {
  }
  EXPECT_TRUE(tower_.all_sent());
  tower_.OnCut();
  EXPECT_FALSE(tower_.all_sent());
  tower_.OnOpened(ProgressAt(6));
  EXPECT_EQ(tower_.TakeToSend(), contribution);
  const UpdateStats& stats = tower_.stats();
  EXPECT_EQ(stats.raw_batches, 1);
  EXPECT_EQ(stats.raw_bytes, 10);
  EXPECT_EQ(stats.contribution_batches, 1);
  EXPECT_EQ(stats.contribution_bytes, 7);
  EXPECT_EQ(stats.resent_batches, 1);
  EXPECT_EQ(stats.reconnects, 1);
}

TEST_F(TowerStateTest, CountsWhatIsSentBySharedMemory) {
  const auto memory = *SharedMemory::Create(1 << 20);
  const auto shared = std::make_shared<EncodedBatch>();
  shared->block = memory->Take(10, {});
  tower_.Push(shared);
  Write(1);
  EXPECT_EQ(tower_.TakeToSend(/*shares=*/true), shared);
  EXPECT_NE(tower_.TakeToSend(/*shares=*/true), nullptr);
  EXPECT_EQ(tower_.stats().shared_batches, 1) << "the other has no block";
  tower_.OnCut();
  tower_.OnOpened(ProgressAt(5));
  EXPECT_EQ(tower_.TakeToSend(/*shares=*/false), shared);
  EXPECT_EQ(tower_.stats().shared_batches, 1);
  EXPECT_EQ(tower_.stats().resent_batches, 1);
}

TEST_F(TowerStateTest, DurableIsMoreThanEnded) {
  Write(1);
  EXPECT_EQ(tower_.DurableOutcome(5), std::nullopt);
  v1::Progress ack = ProgressAt(6);
  ack.set_durable(4);
  tower_.OnAck(ack);
  EXPECT_TRUE(tower_.Outcome(5)->ok());
  EXPECT_EQ(tower_.DurableOutcome(5), std::nullopt);
  tower_.OnAck(ProgressAt(6));
  EXPECT_TRUE(tower_.DurableOutcome(5)->ok());
  tower_.End(absl::UnavailableError("gone"));
  EXPECT_TRUE(tower_.DurableOutcome(5)->ok());
}

TEST_F(TowerStateTest, WaitingReportsARefusalToo) {
  Write(1);
  tower_.OnRefused(5, absl::InvalidArgumentError("NaN in inputs"));
  EXPECT_EQ(CodeOf(5), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(tower_.TakeRefusal().ok()) << "already reported";
  Write(1);
  EXPECT_EQ(tower_.Outcome(5), std::nullopt) << "written again";
}

TEST_F(TowerStateTest, ARefusalOfWhatWasNotWrittenIsIgnored) {
  tower_.OnRefused(5, absl::InternalError("what?"));
  EXPECT_EQ(tower_.next_step(), 5);
  EXPECT_TRUE(tower_.TakeRefusal().ok());
}

TEST_F(TowerStateTest, TheEndLeavesWhatIsKnown) {
  Write(2);
  tower_.OnAck(ProgressAt(6));
  tower_.End(absl::UnavailableError("gone"));
  tower_.End(absl::InternalError("later"));
  EXPECT_TRUE(tower_.ended());
  EXPECT_EQ(CodeOf(5), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(6), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace fisherd
