#include "core/step_gather.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/room_queue.h"
#include "tests/long_tests.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Admission = StepGather::Admission;
using Verdict = StepGather::Verdict;
using Hold = StepGather::Hold;

constexpr StepParameters kParameters{.decay = 0.5, .weight = 0.5};
constexpr auto kFail = GatherPolicy::kFail;
constexpr auto kPartial = GatherPolicy::kPartial;

Digest DigestOf(int n) {
  Digest digest{};
  digest[0] = static_cast<std::byte>(n);
  return digest;
}

std::string ReasonOf(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  return details.has_value() ? details->reason : "";
}

// A factor's place in a queue that it may share.
class TestRoom : public StepRoom {
 public:
  TestRoom(RoomQueue<int>& queue, int factor) : queue_(queue), factor_(factor) {}

  int64_t limit() const override { return std::min(queue_.limit(), own_limit); }
  bool Take(int64_t bytes) override { return queue_.Take(bytes); }
  bool TakeInTurn(int64_t bytes) override { return queue_.TakeInTurn(factor_, bytes); }
  void Leave() override { queue_.Leave(factor_); }
  void GiveBack(int64_t bytes) override { queue_.GiveBack(bytes); }

  int64_t own_limit = INT64_MAX;

 private:
  RoomQueue<int>& queue_;
  const int factor_;
};

// A gather with memory of its own, and batches of one size unless said otherwise.
class Case {
 public:
  Case(int towers, int window, int64_t limit = 1 << 20)
      : queue_(limit), room(queue_, 0), gather(towers, window) {}
  Case(int towers, int window, RoomQueue<int>& queue, int factor)
      : queue_(0), room(queue, factor), gather(towers, window) {}

  absl::StatusOr<StepGather::Answer> Begin(int64_t step, int tower, int64_t bytes = 10,
                                           const StepParameters& parameters = kParameters,
                                           int digest = 1) {
    holds.clear();
    return gather.Begin({step, tower, bytes, parameters, DigestOf(digest)}, ledger, room, holds);
  }
  // Sends a whole batch.
  Admission Deliver(int64_t step, int tower, int64_t bytes = 10) {
    const auto answer = Begin(step, tower, bytes);
    EXPECT_TRUE(answer.ok()) << answer.status();
    if (!answer.ok()) return Admission::kOnHold;
    if (answer->admission == Admission::kAdmitted) {
      EXPECT_TRUE(gather.Complete(step, tower, answer->ticket));
    }
    return answer->admission;
  }
  Verdict Decide(GatherPolicy policy = kFail, bool expired = false) const {
    return gather.Decide(policy, expired, ledger.Find(gather.next()));
  }
  void End(StepOutcome outcome = StepOutcome::kWhole, std::vector<int> counted = {}) {
    gather.BeginEnd();
    gather.EndStep(room);
    ledger.Record(outcome, std::move(counted));
  }

 private:
  RoomQueue<int> queue_;

 public:
  TestRoom room;
  StepGather gather;
  Ledger ledger;
  std::vector<Hold> holds;
};

TEST(StepGatherTest, AStepIsWholeWhenAllTowersAre) {
  Case test(2, 4);
  EXPECT_EQ(test.Decide(), Verdict::kWait);
  test.Deliver(1, 1);
  EXPECT_EQ(test.Decide(), Verdict::kWait);
  const auto answer = test.Begin(1, 0, 10, kParameters, 7);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(test.Decide(), Verdict::kWait) << "arriving is not whole";
  ASSERT_TRUE(test.gather.Complete(1, 0, answer->ticket));
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
  EXPECT_EQ(test.gather.parameters(), kParameters);
  EXPECT_THAT(test.gather.WholeTowers(), ElementsAre(0, 1));
  test.End();
  EXPECT_EQ(test.gather.next(), 2);
  EXPECT_EQ(test.Decide(), Verdict::kWait);
}

TEST(StepGatherTest, TheWindowBoundsHowFarATowerRunsAhead) {
  Case test(2, 3);
  for (const int64_t step : {1, 2, 3}) test.Deliver(step, 0);
  EXPECT_EQ(test.gather.ReceivedThrough(0), 3);
  EXPECT_EQ(test.gather.ReceivedThrough(1), 0);
  const auto beyond = test.Begin(4, 0);
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(beyond.status()), reason::kBeyondWindow);
  EXPECT_THAT(std::string(beyond.status().message()), HasSubstr("steps 1 to 3"));
  EXPECT_EQ(test.Begin(INT64_MAX, 0).status().code(), absl::StatusCode::kOutOfRange);
  test.Deliver(1, 1);
  test.End();
  EXPECT_EQ(test.Deliver(4, 0), Admission::kAdmitted);
}

TEST(StepGatherTest, RefusesATowerThatIsNot) {
  Case test(2, 3);
  for (const int tower : {-1, 2}) {
    const auto answer = test.Begin(1, tower);
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr("towers 0 to 1"));
  }
  EXPECT_EQ(test.gather.open_through(), 0);
}

TEST(StepGatherTest, ATowersBatchesComeInOrder) {
  Case test(2, 3);
  const auto gap = test.Begin(2, 0);
  EXPECT_EQ(gap.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(gap.status()), reason::kStepOutOfOrder);
  EXPECT_THAT(std::string(gap.status().message()), HasSubstr("expected step 1"));
  const auto arriving = test.Begin(1, 0);
  EXPECT_EQ(ReasonOf(test.Begin(2, 0).status()), reason::kStepOutOfOrder) << "it is not whole";
  test.gather.Complete(1, 0, arriving->ticket);
  EXPECT_EQ(test.Deliver(2, 0), Admission::kAdmitted);
  EXPECT_EQ(test.Deliver(1, 1), Admission::kAdmitted) << "each tower by itself";
}

TEST(StepGatherTest, TheSameBatchAgainIsToBeDiscarded) {
  Case test(2, 3);
  test.Deliver(1, 0);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kHeld);
  const auto other = test.Begin(1, 0, 10, kParameters, 2);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(other.status()), reason::kIdentityReused);
  test.Deliver(1, 1);
  EXPECT_EQ(test.Decide(), Verdict::kWhole) << "neither has counted";
}

TEST(StepGatherTest, AnArrivingBatchIsNotBegunTwice) {
  Case test(1, 3);
  ASSERT_TRUE(test.Begin(1, 0).ok());
  EXPECT_EQ(test.Begin(1, 0).status().code(), absl::StatusCode::kAborted);
}

TEST(StepGatherTest, AllTowersSendTheSameParameters) {
  Case test(2, 3);
  test.Deliver(1, 0);
  const auto decay = test.Begin(1, 1, 10, {.decay = 0.25, .weight = 0.5});
  EXPECT_EQ(decay.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(decay.status()), reason::kStepParametersDiffer);
  EXPECT_THAT(std::string(decay.status().message()), HasSubstr("decay is 0.25"));
  const auto weight = test.Begin(1, 1, 10, {.decay = 0.5, .weight = 2});
  EXPECT_THAT(std::string(weight.status().message()), HasSubstr("weight is 2"));
  test.Deliver(1, 1);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
}

TEST(StepGatherTest, AnAbandonedBatchBindsNobody) {
  Case test(2, 3);
  const auto answer = test.Begin(1, 0, 10, {.decay = 0.9, .weight = 0.1});
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(test.gather.ClockRuns());
  EXPECT_TRUE(test.gather.Abandon(1, 0, answer->ticket));
  EXPECT_FALSE(test.gather.ClockRuns());
  EXPECT_EQ(test.gather.open_through(), 1) << "the step stays open";
  EXPECT_FALSE(test.gather.Complete(1, 0, answer->ticket)) << "its ticket is stale";
  EXPECT_FALSE(test.gather.Abandon(1, 0, answer->ticket));
  test.Deliver(1, 1);
  test.Deliver(1, 0);
  EXPECT_EQ(test.gather.parameters(), kParameters);
}

TEST(StepGatherTest, ClearingATowerSparesOthersAndACommit) {
  Case test(2, 4);
  for (const int64_t step : {1, 2, 3}) test.Deliver(step, 0);
  const auto arriving = test.Begin(4, 0);
  ASSERT_TRUE(arriving.ok());
  test.Deliver(1, 1);
  test.Deliver(2, 1);
  test.gather.BeginEnd();
  EXPECT_THAT(test.gather.ClearTower(0), ElementsAre(2, 3));
  EXPECT_FALSE(test.gather.Complete(4, 0, arriving->ticket));
  test.End();
  EXPECT_EQ(test.Decide(), Verdict::kWait);
  EXPECT_THAT(test.gather.ClearTower(0), IsEmpty());
  test.Deliver(2, 0);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
}

// ---- Room

TEST(StepGatherTest, AnOpenStepHasRoomForAllTowers) {
  Case test(2, 4, /*limit=*/50);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kAdmitted);
  EXPECT_EQ(test.gather.bytes(), 20) << "for both";
  EXPECT_EQ(test.Deliver(2, 0), Admission::kAdmitted);
  EXPECT_EQ(test.Deliver(3, 0), Admission::kOnHold) << "20 more do not fit 50";
  EXPECT_EQ(test.gather.open_through(), 2);
  EXPECT_TRUE(test.gather.wants_room());
  EXPECT_EQ(test.Deliver(1, 1), Admission::kAdmitted);
  test.End();
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  EXPECT_EQ(test.gather.open_through(), 3);
  EXPECT_EQ(test.Deliver(3, 0), Admission::kAdmitted);
}

TEST(StepGatherTest, WhatFollowsAHeldBatchIsHeldToo) {
  Case test(1, 4, /*limit=*/10);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kAdmitted);
  EXPECT_EQ(test.Deliver(2, 0), Admission::kOnHold);
  test.End();
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  // It was on its way when step 2 was put on hold: not an error of the sender's.
  EXPECT_EQ(test.Deliver(3, 0), Admission::kOnHold);
  EXPECT_EQ(test.Deliver(2, 0), Admission::kAdmitted);
  test.End();
  EXPECT_TRUE(test.gather.OpenWaiting(test.room)) << "who was told to hold it waits for that";
  EXPECT_EQ(test.gather.open_through(), 3);
  EXPECT_EQ(ReasonOf(test.Begin(4, 0).status()), reason::kStepOutOfOrder)
      << "the hold is over, and step 3 is missing";
}

TEST(StepGatherTest, WhatFollowsAHeldBatchAsksForItsStepToo) {
  RoomQueue<int> queue(10);
  Case a(1, 4, queue, 0), b(1, 4, queue, 1);
  b.Deliver(1, 0);
  EXPECT_EQ(a.Deliver(1, 0), Admission::kOnHold);
  b.End();
  EXPECT_TRUE(a.gather.OpenWaiting(a.room));
  EXPECT_EQ(a.Deliver(2, 0), Admission::kOnHold) << "on its way when step 1 was put on hold";
  EXPECT_EQ(a.Deliver(1, 0), Admission::kAdmitted);
  EXPECT_TRUE(a.gather.wants_room()) << "nobody will send step 2 again before it is open";
  a.End();
  EXPECT_TRUE(a.gather.OpenWaiting(a.room));
  EXPECT_EQ(a.gather.open_through(), 2);
}

TEST(StepGatherTest, ALargerBatchClosesTheYoungestSteps) {
  Case test(2, 4, /*limit=*/60);
  for (const int64_t step : {1, 2, 3}) test.Deliver(step, 0);
  EXPECT_EQ(test.gather.bytes(), 60);
  EXPECT_EQ(test.Deliver(1, 1, /*bytes=*/20), Admission::kAdmitted);
  EXPECT_THAT(test.holds, ElementsAre(Hold{0, 3}));
  EXPECT_EQ(test.gather.open_through(), 2);
  EXPECT_EQ(test.gather.bytes(), 60) << "40 for step 1, 20 for step 2";
  EXPECT_EQ(test.gather.ReceivedThrough(0), 2);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
}

TEST(StepGatherTest, ALargerBatchClosesItsOwnStepLast) {
  RoomQueue<int> queue(60);
  Case test(2, 4, queue, 0);
  Case other(2, 4, queue, 1);
  other.Deliver(1, 0, 15);
  test.Deliver(1, 0);
  EXPECT_EQ(test.Deliver(1, 1, /*bytes=*/20), Admission::kOnHold);
  EXPECT_THAT(test.holds, ElementsAre(Hold{0, 1}));
  EXPECT_EQ(test.gather.bytes(), 0);
  other.Deliver(1, 1, 15);
  other.End();
  EXPECT_EQ(queue.Ready(), 0);
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  EXPECT_EQ(test.gather.bytes(), 40);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kAdmitted);
  EXPECT_EQ(test.Deliver(1, 1, 20), Admission::kAdmitted);
}

TEST(StepGatherTest, WhoWaitsIsNotPassed) {
  RoomQueue<int> queue(40);
  Case a(1, 4, queue, 0), b(1, 4, queue, 1), c(1, 4, queue, 2);
  a.Deliver(1, 0, 30);
  EXPECT_EQ(b.Deliver(1, 0, 20), Admission::kOnHold);
  EXPECT_EQ(c.Deliver(1, 0, 10), Admission::kOnHold) << "there is room, but b waits";
  EXPECT_EQ(b.Deliver(1, 0, 20), Admission::kOnHold) << "in its place, once";
  EXPECT_EQ(queue.waiting().size(), 2);
  a.End();
  EXPECT_EQ(queue.Ready(), 1);
  EXPECT_FALSE(c.gather.OpenWaiting(c.room));
  EXPECT_TRUE(b.gather.OpenWaiting(b.room));
  EXPECT_TRUE(c.gather.OpenWaiting(c.room));
}

// A client sends what is on hold only once it is open, so the server must remember all of it.
TEST(StepGatherTest, EveryStepOnHoldOpensWhenThereIsRoom) {
  RoomQueue<int> queue(20);
  Case a(1, 4, queue, 0);
  Case b(1, 4, queue, 1);
  EXPECT_EQ(b.Deliver(1, 0, 20), Admission::kAdmitted);
  for (const int step : {1, 2, 3}) EXPECT_EQ(a.Deliver(step, 0), Admission::kOnHold) << step;
  b.End();
  EXPECT_TRUE(a.gather.OpenWaiting(a.room));
  EXPECT_EQ(a.gather.open_through(), 2);
  EXPECT_EQ(a.Deliver(1, 0), Admission::kAdmitted);
  a.End();
  EXPECT_TRUE(a.gather.OpenWaiting(a.room));
  EXPECT_EQ(a.gather.open_through(), 3);
}

TEST(StepGatherTest, AFactorKeepsToItsOwnLimitWithoutHoldingUpOthers) {
  RoomQueue<int> queue(100);
  Case a(1, 4, queue, 0), b(1, 4, queue, 1);
  a.room.own_limit = 20;
  EXPECT_EQ(a.Deliver(1, 0, 15), Admission::kAdmitted);
  EXPECT_EQ(a.Deliver(2, 0, 15), Admission::kOnHold);
  EXPECT_THAT(queue.waiting(), IsEmpty());
  EXPECT_EQ(b.Deliver(1, 0, 80), Admission::kAdmitted);
  a.End();
  EXPECT_TRUE(a.gather.OpenWaiting(a.room));
}

TEST(StepGatherTest, WhatCanNeverFitIsRefused) {
  Case test(2, 4, 50);
  const auto answer = test.Begin(1, 0, 26);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(GetErrorDetails(answer.status())->retry_after.has_value());
  EXPECT_EQ(test.Deliver(1, 0, 25), Admission::kAdmitted);
}

TEST(StepGatherTest, OpenStepsWithoutABatchAreClosed) {
  Case test(1, 4, 40);
  const auto first = test.Begin(1, 0);
  test.gather.Abandon(1, 0, first->ticket);
  EXPECT_EQ(test.gather.bytes(), 10);
  test.gather.CloseEmpty(test.room);
  EXPECT_EQ(test.gather.bytes(), 0);
  EXPECT_EQ(test.gather.next(), 1) << "closed, not ended";
  EXPECT_EQ(test.Deliver(1, 0), Admission::kAdmitted);
  test.gather.CloseEmpty(test.room);
  EXPECT_EQ(test.gather.open_through(), 1) << "it has one";
  test.gather.CloseAll(test.room);
  EXPECT_EQ(test.gather.bytes(), 0);
}

// ---- Stragglers

TEST(StepGatherTest, WhenTimeIsOverThePolicyDecides) {
  Case test(3, 4);
  test.Deliver(1, 0);
  test.Deliver(1, 2);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kWait);
  EXPECT_EQ(test.Decide(kPartial, /*expired=*/true), Verdict::kPartial);
  EXPECT_THAT(test.gather.WholeTowers(), ElementsAre(0, 2));
  EXPECT_EQ(test.Decide(kFail, true), Verdict::kFailed);
  test.Deliver(1, 1);
  EXPECT_EQ(test.Decide(kFail, true), Verdict::kWhole) << "all came after all";
}

TEST(StepGatherTest, EveryStepOnHoldIsWantedUntilItComesAgain) {
  RoomQueue<int> queue(20);
  Case other(2, 4, queue, 1);
  Case test(2, 4, queue, 0);
  other.Deliver(1, 0);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kOnHold);
  EXPECT_EQ(test.Deliver(2, 0), Admission::kOnHold);
  other.Deliver(1, 1);
  other.End();
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  EXPECT_EQ(test.gather.open_through(), 1);
  test.gather.CloseEmpty(test.room);
  EXPECT_TRUE(test.gather.wants_room()) << "or its tower would wait for ever";
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  test.Deliver(1, 0);
  test.Deliver(1, 1);
  test.End();
  EXPECT_TRUE(test.gather.wants_room()) << "for step 2";
  EXPECT_TRUE(test.gather.OpenWaiting(test.room));
  EXPECT_EQ(test.Deliver(2, 0), Admission::kAdmitted);
}

TEST(StepGatherTest, APartialStepOfNobodyFails) {
  Case test(2, 4);
  ASSERT_TRUE(test.Begin(1, 0).ok());
  EXPECT_EQ(test.Decide(kPartial, true), Verdict::kFailed) << "one is on its way, none is whole";
}

TEST(StepGatherTest, AStragglerIsLate) {
  Case test(2, 4);
  test.Deliver(1, 0);
  const auto arriving = test.Begin(1, 1);
  test.gather.BeginEnd();
  EXPECT_FALSE(test.gather.Complete(1, 1, arriving->ticket));
  EXPECT_TRUE(test.Begin(2, 1).ok()) << "step 1 is not waited for";
  test.End(StepOutcome::kPartial, {0});
  test.gather.ClearTower(1);
  EXPECT_EQ(test.Deliver(2, 1), Admission::kAdmitted) << "it goes on with the next step";

  test.Deliver(2, 0);
  test.Deliver(3, 0);
  test.End();
  test.gather.BeginEnd();
  EXPECT_EQ(test.Deliver(3, 1), Admission::kLate) << "no error: no outcome is on record yet";
}

TEST(StepGatherTest, ATowerThatCannotSendAStepIsMissingAtOnce) {
  Case test(2, 4);
  test.gather.OpenTower(0, 0, 0);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kWait);
  test.gather.OpenTower(1, 3, 5);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kWait) << "for tower 0";
  test.Deliver(1, 0);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kPartial);
  EXPECT_EQ(test.Decide(kFail), Verdict::kFailed);
  test.End(StepOutcome::kPartial, {0});
  EXPECT_EQ(test.Deliver(3, 1), Admission::kAdmitted) << "it begins where it can";
}

TEST(StepGatherTest, ATowerThatBeginsLaterSendsOnInOrder) {
  Case test(2, 4);
  test.gather.OpenTower(1, 2, 4);
  EXPECT_EQ(test.Deliver(2, 1), Admission::kAdmitted);
  EXPECT_EQ(test.Begin(4, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(test.Deliver(3, 1), Admission::kAdmitted) << "step 1 has not ended";
  EXPECT_EQ(test.Deliver(4, 1), Admission::kAdmitted);
  // So does one that SetTowers adds.
  Case grown(1, 4);
  grown.Deliver(1, 0);
  ASSERT_EQ(grown.gather.SetTowers(2, /*now=*/false, grown.room, grown.holds), 2);
  EXPECT_EQ(grown.Deliver(2, 1), Admission::kAdmitted);
  EXPECT_EQ(grown.Deliver(3, 1), Admission::kAdmitted);
}

// ---- After a rollback

TEST(StepGatherTest, ARecordedStepEndsAgainOverTheSameTowers) {
  Case test(3, 4);
  test.ledger.Record(StepOutcome::kPartial, {0, 2});
  test.ledger.Record(StepOutcome::kFailed);
  test.ledger.RollBack(1);
  test.Deliver(1, 0);
  EXPECT_EQ(test.Deliver(2, 1), Admission::kAdmitted)
      << "tower 1 is not waited for in step 1, nor has it to send it";
  test.gather.ClearTower(1);
  EXPECT_EQ(test.Decide(kFail), Verdict::kWait);
  test.Deliver(1, 2);
  EXPECT_EQ(test.Decide(kFail), Verdict::kPartial);
  test.End(StepOutcome::kPartial, {0, 2});
  EXPECT_EQ(test.Decide(kPartial), Verdict::kFailed) << "at once";
  test.End(StepOutcome::kFailed);
  EXPECT_EQ(test.ledger.steps_lost(), 0);
  for (const int tower : {0, 1, 2}) test.Deliver(3, tower);
  EXPECT_EQ(test.Decide(kFail), Verdict::kWhole);
}

TEST(StepGatherTest, AStepThatNobodySendsDoesNotHoldUpLaterOnesForEver) {
  Case test(2, 4);
  test.ledger.Record(StepOutcome::kPartial, {1});
  test.ledger.RollBack(1);
  EXPECT_FALSE(test.gather.ClockRuns());
  EXPECT_EQ(test.Deliver(2, 0), Admission::kAdmitted) << "of step 1 it was told that it missed it";
  EXPECT_TRUE(test.gather.ClockRuns()) << "tower 1 may never come back";
  EXPECT_EQ(test.Decide(kPartial, /*expired=*/true), Verdict::kFailed);
}

TEST(StepGatherTest, ARecordedStepWhoseTowersAreGoneFollowsThePolicy) {
  Case test(2, 4);
  test.ledger.Record(StepOutcome::kPartial, {1});
  test.ledger.RollBack(1);
  test.gather.OpenTower(0, 1, 1);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kWait);
  EXPECT_EQ(test.Decide(kPartial, /*expired=*/true), Verdict::kFailed);
  test.gather.OpenTower(1, 2, 2);  // it cannot send step 1 again
  test.Deliver(1, 0);
  EXPECT_EQ(test.Decide(kPartial), Verdict::kPartial);
  test.End(StepOutcome::kPartial, test.gather.WholeTowers());
  EXPECT_EQ(test.ledger.steps_lost(), 1);
}

// ---- Towers that change

TEST(StepGatherTest, TowersChangeFromTheFirstStepThatIsNotOpen) {
  Case test(1, 4);
  test.Deliver(1, 0);
  EXPECT_EQ(test.gather.SetTowers(2, /*now=*/false, test.room, test.holds), 2);
  EXPECT_EQ(test.Begin(1, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(test.Deliver(2, 1), Admission::kAdmitted) << "a new tower begins there";
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
  test.End();
  EXPECT_EQ(test.Decide(), Verdict::kWait);
  test.Deliver(2, 0);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
  EXPECT_EQ(test.gather.SetTowers(1, false, test.room, test.holds), 3);
  test.End();
  EXPECT_EQ(test.Begin(3, 1).status().code(), absl::StatusCode::kOutOfRange);
  test.Deliver(3, 0);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
}

TEST(StepGatherTest, TowersChangeNowAndHeldBatchesAreSentAgain) {
  Case test(2, 4);
  test.Deliver(1, 0);
  test.Deliver(2, 0);
  test.Deliver(1, 1);
  test.holds.clear();
  EXPECT_EQ(test.gather.SetTowers(1, /*now=*/true, test.room, test.holds), 1);
  EXPECT_THAT(test.holds, testing::UnorderedElementsAre(Hold{0, 1}, Hold{1, 1}));
  EXPECT_EQ(test.gather.bytes(), 0);
  EXPECT_EQ(test.Deliver(1, 0), Admission::kAdmitted);
  EXPECT_EQ(test.Decide(), Verdict::kWhole);
}

// Random events against a plain model: a set of what is whole and what is on its way.
TEST(StepGatherTest, AgreesWithAPlainModel) {
  constexpr int kTowers = 3, kWindow = 3;
  int64_t ended = 0;
  for (int seed = 0; seed < Repetitions(200, 100000); ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int n) { return static_cast<int>(random() % n); };
    Case test(kTowers, kWindow);
    StepGather& gather = test.gather;
    std::map<std::pair<int64_t, int>, StepGather::Ticket> arriving;
    std::set<std::pair<int64_t, int>> whole;
    int64_t next = 1;
    for (int event = 0; event < 600; ++event) {
      const int64_t step = next + std::min(draw(kWindow + 1), draw(kWindow + 1));
      const int tower = draw(kTowers);
      const std::pair key(step, tower);
      switch (draw(7)) {
        default: {
          const auto answer = test.Begin(step, tower);
          if (step >= next + kWindow) {
            ASSERT_EQ(ReasonOf(answer.status()), reason::kBeyondWindow);
          } else if (whole.count(key)) {
            ASSERT_EQ(answer.value().admission, Admission::kHeld);
          } else if (arriving.count(key)) {
            ASSERT_EQ(answer.status().code(), absl::StatusCode::kAborted);
          } else if (step > next && !whole.count({step - 1, tower})) {
            ASSERT_EQ(ReasonOf(answer.status()), reason::kStepOutOfOrder);
          } else {
            ASSERT_EQ(answer.value().admission, Admission::kAdmitted);
            arriving[key] = answer->ticket;
          }
          break;
        }
        case 0:
        case 1:
          if (const auto it = arriving.find(key); it != arriving.end()) {
            ASSERT_TRUE(gather.Complete(step, tower, it->second));
            whole.insert(key);
            arriving.erase(it);
          }
          break;
        case 2:
          if (const auto it = arriving.find(key); it != arriving.end()) {
            ASSERT_TRUE(gather.Abandon(step, tower, it->second));
            arriving.erase(it);
          }
          break;
        case 3:
          if (draw(8) == 0) {
            gather.ClearTower(tower);
            std::erase_if(whole, [&](const auto& k) { return k.second == tower; });
            std::erase_if(arriving, [&](const auto& k) { return k.first.second == tower; });
          }
          break;
      }
      const auto of_next =
          std::count_if(whole.begin(), whole.end(), [&](const auto& k) { return k.first == next; });
      ASSERT_EQ(test.Decide(), of_next == kTowers ? Verdict::kWhole : Verdict::kWait);
      if (of_next == kTowers) {
        test.End();
        std::erase_if(whole, [&](const auto& k) { return k.first == next; });
        ++next;
      }
      ASSERT_EQ(gather.next(), next);
      ASSERT_EQ(gather.BatchesHeld(), whole.size() + arriving.size());
    }
    ended += next - 1;
  }
  EXPECT_GT(ended, 200) << "too few steps ended to prove anything";
}

}  // namespace
}  // namespace fisherd::core
