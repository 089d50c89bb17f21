#include "client/cpp/tower_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

class TowerStateTest : public testing::Test {
 protected:
  TowerStateTest() { tower_.OnOpened(ProgressAt(5)); }

  void Write(int count) {
    for (int i = 0; i < count; ++i) tower_.BeginStep();
  }
  absl::StatusCode CodeOf(int64_t step) {
    const auto outcome = tower_.Outcome(step);
    return outcome ? outcome->code() : absl::StatusCode::kUnknown;
  }
  void Failed(int64_t first, int64_t last, v1::Progress& progress) {
    v1::StepRun& run = *progress.add_missed();
    run.set_first_step(first);
    run.set_last_step(last);
    run.set_outcome(v1::STEP_OUTCOME_FAILED);
  }

  TowerState tower_{"f", 0};
};

TEST(TowerStateUnopenedTest, NothingIsHeardBeforeOpened) {
  TowerState tower("f", 0);
  tower.OnAck(ProgressAt(9));
  tower.OnRefused(3, absl::InternalError("of an older life"));
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
  EXPECT_THAT(std::string(later.message()), HasSubstr("when step 5 was refused"));
  EXPECT_THAT(std::string(later.message()), HasSubstr("NaN in inputs"));
  EXPECT_EQ(tower_.TakeRefusal().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(tower_.TakeRefusal().ok()) << "reported once";
}

TEST_F(TowerStateTest, AForetoldRefusalDoesNotHitTheRewrittenStep) {
  Write(2);  // 5 and 6
  tower_.OnRefused(5, absl::InvalidArgumentError("NaN in inputs"));
  EXPECT_FALSE(tower_.TakeRefusal().ok());
  Write(2);                                                       // 5 and 6 again
  tower_.OnRefused(6, absl::OutOfRangeError("does not follow"));  // of the first 6
  EXPECT_EQ(tower_.next_step(), 7);
  EXPECT_TRUE(tower_.TakeRefusal().ok());
  EXPECT_EQ(tower_.Outcome(6), std::nullopt);
  tower_.OnRefused(6, absl::InvalidArgumentError("of the second 6"));
  EXPECT_EQ(tower_.next_step(), 6);
  EXPECT_EQ(tower_.TakeRefusal().message(), "of the second 6");
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
