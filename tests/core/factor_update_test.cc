// How steps come about: claims, admission, commits.

#include <gmock/gmock.h>

#include <limits>
#include <thread>

#include "tests/core/factor_harness.h"
#include "tests/long_tests.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FactorUpdateTest : public FactorTest {};

TEST_F(FactorUpdateTest, AStepOfOneTower) {
  const auto factor = Create("mlp/0", Golden());
  const auto stream = OpenTower(*factor, 0);
  BatchHeader header = Header(*factor, 1, 2);
  header.label = 4711;
  ASSERT_TRUE(Send(*factor, header, golden_batch_, stream.get()).ok());
  const auto read = ReadAfter(*factor, 1);
  EXPECT_THAT(Elements(read), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(read->version, (Version{1000, 77, 1}));
  EXPECT_EQ(read->steps_committed, 1);
  EXPECT_EQ(read->next, 2);
  EXPECT_EQ(read->total_weight, 0.5);
  const FactorInfo info = factor->Describe();
  EXPECT_EQ(info.label, 4711);
  EXPECT_EQ(info.next, 2);
  EXPECT_EQ(info.durable, 1);
  EXPECT_EQ(info.held_bytes, 0);
}

TEST_F(FactorUpdateTest, WaitsForAllTowersAndCommitsInOrder) {
  const auto factor = Create("f", Golden(/*towers=*/2));
  const auto a = OpenTower(*factor, 0, 1);
  const auto b = OpenTower(*factor, 1, 2);
  for (const int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(Send(*factor, Header(*factor, step, 2, 0), golden_batch_, a.get()).ok());
  }
  FactorInfo info = factor->Describe();
  EXPECT_EQ(info.next, 1);
  EXPECT_EQ(info.held_batches, 3);
  EXPECT_GT(info.held_bytes, 0);
  EXPECT_EQ(info.towers[0].received_through, 3);
  EXPECT_EQ(info.towers[1].received_through, 0);
  for (const int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(Send(*factor, Header(*factor, step, 2, 1), golden_batch_, b.get()).ok());
  }
  EXPECT_THAT(Elements(ReadAfter(*factor, 3)), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(factor->Describe().held_bytes, 0);
  EXPECT_EQ(registry_->batch_budget().used(), 0);
}

TEST_F(FactorUpdateTest, ARepeatChangesNothing) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  const auto again = factor->Begin(Header(*factor, 1, 2), stream.get());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, nullptr) << "to be read and discarded";
  EXPECT_EQ(factor->Describe().next, 2);
}

TEST_F(FactorUpdateTest, RefusesWrongHeadersNamingTheField) {
  const auto factor = Create("f", Golden(2));
  const auto stream = OpenTower(*factor, 0);
  struct Case {
    std::string field;
    std::function<void(BatchHeader&)> change;
    absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Case> cases = {
      {"decay", [](auto& h) { h.decay = std::nullopt; }},
      {"decay", [](auto& h) { h.decay = -0.1; }},
      {"decay", [](auto& h) { h.decay = 1.5; }},
      {"decay", [&](auto& h) { h.decay = nan; }},
      {"weight", [](auto& h) { h.decay = 1; }},
      {"weight", [](auto& h) { h.weight = 0; }},
      {"weight", [&](auto& h) { h.weight = nan; }},
      {"weight", [](auto& h) { h.weight = HUGE_VAL; }},
      {"gradient_scale", [](auto& h) { h.gradient_scale = 0; }},
      {"gradient_scale", [&](auto& h) { h.gradient_scale = nan; }},
      {"rows", [](auto& h) { h.rows = 0; }},
      {"step", [](auto& h) { h.step = 0; }},
      {"step", [](auto& h) { h.step = -5; }},
      {"tower", [](auto& h) { h.tower = 2; }, absl::StatusCode::kOutOfRange},
      {"tower", [](auto& h) { h.tower = -1; }, absl::StatusCode::kOutOfRange},
      {"tower", [](auto& h) { h.tower = 1; }, absl::StatusCode::kFailedPrecondition},
      {"step", [](auto& h) { h.step = 5; }, absl::StatusCode::kOutOfRange},
      {"incarnation", [](auto& h) { h.incarnation = 999; }, absl::StatusCode::kFailedPrecondition},
  };
  for (const Case& c : cases) {
    BatchHeader header = Header(*factor, 1, 2);
    c.change(header);
    const absl::Status status = factor->Begin(header, stream.get()).status();
    EXPECT_EQ(status.code(), c.code) << status;
    const auto details = GetErrorDetails(status);
    ASSERT_TRUE(details.has_value()) << c.field;
    EXPECT_EQ(details->metadata.at("field"), c.field) << status;
  }
  const FactorInfo info = factor->Describe();
  EXPECT_EQ(info.next, 1);
  EXPECT_EQ(info.held_bytes, 0);
  EXPECT_EQ(info.towers[0].received_through, 0);
  EXPECT_EQ(registry_->batch_budget().used(), 0);
  EXPECT_TRUE(factor->Begin(Header(*factor, 1, 2), stream.get()).ok())
      << "the header itself is fine";
}

TEST_F(FactorUpdateTest, ABatchThatGoesBadLeavesItsStepOpen) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  Floats bad = golden_batch_;
  bad[2] = std::numeric_limits<float>::quiet_NaN();
  const absl::Status status = Send(*factor, Header(*factor, 1, 2), bad, stream.get());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), reason::kNonFiniteInput);
  EXPECT_EQ(registry_->batch_budget().used(), 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  EXPECT_THAT(Elements(ReadAfter(*factor, 1)), ElementsAreArray(golden_covariance_));
}

TEST_F(FactorUpdateTest, AStepThatOverflowsFailsForAllAndTheNextMayCommit) {
  const auto factor = Create("f", Spec(1, 1, false, 2));
  const auto a = OpenTower(*factor, 0, 1);
  const auto b = OpenTower(*factor, 1, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 1, 0), {2, 3}, a.get()).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 1, 1), {2, 3}, b.get()).ok());
  ASSERT_THAT(Elements(ReadAfter(*factor, 1)), ElementsAreArray({36.0f}));
  // Squares fit a float, their product does not.
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 1, 0), {1e15f, 1e15f}, a.get()).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 1, 1), {2, 3}, b.get()).ok());
  const auto after = ReadAfter(*factor, 2);
  EXPECT_THAT(Elements(after), ElementsAreArray({36.0f}));
  EXPECT_EQ(after->version.step, 1) << "version stays";
  EXPECT_EQ(after->steps_committed, 1);
  EXPECT_EQ(after->next, 3);
  const Progress progress = factor->GetProgress(1);
  EXPECT_THAT(progress.missed, testing::ElementsAre(StepRun{2, 2, StepOutcome::kFailed}));
  const absl::Status repeat = factor->Begin(Header(*factor, 2, 1, 0), a.get()).status();
  EXPECT_EQ(repeat.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(repeat), reason::kStepFailed);
  ASSERT_TRUE(Send(*factor, Header(*factor, 3, 1, 0), {2, 3}, a.get()).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 3, 1, 1), {2, 3}, b.get()).ok());
  EXPECT_THAT(Elements(ReadAfter(*factor, 3)), ElementsAreArray({36.0f}));
  EXPECT_EQ(factor->Describe().steps_failed, 1);
}

TEST_F(FactorUpdateTest, LargeButFiniteStepsCommit) {
  const auto factor = Create("f", Spec(1, 1, false));
  const auto stream = OpenTower(*factor, 0);
  // A bound alone cannot tell that these fit: 256 rows, of which one is large.
  Floats batch(512, 0.0f);
  batch[0] = batch[256] = 1.3e9f;  // 2.9e36, times 256 rows beyond a float
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 256), batch, stream.get()).ok());
  const auto read = ReadAfter(*factor, 1);
  EXPECT_EQ(read->version.step, 1);
  EXPECT_NEAR(Elements(read)[0] / (1.3e9 * 1.3e9 * 1.3e9 * 1.3e9 / 256), 1, 1e-6);
}

TEST_F(FactorUpdateTest, AClaimStandsWhileItsStreamLives) {
  const auto factor = Create("f", Golden(2));
  const auto first = OpenTower(*factor, 0, 1);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, first.get()).ok());
  const auto second = std::make_shared<CountingListener>();
  const absl::Status refused = factor->Open(0, ClientOf(2), 0, false, second).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused), reason::kTowerClaimed);
  EXPECT_TRUE(factor->IsOwner(0, first.get()));
  EXPECT_EQ(factor->Describe().held_batches, 1);

  ASSERT_TRUE(factor->Open(0, ClientOf(2), 0, /*take_over=*/true, second).ok());
  EXPECT_EQ(first->calls(), 1) << "it is told";
  EXPECT_EQ(factor->Describe().held_batches, 0) << "the old owner's batches go";
  EXPECT_EQ(registry_->batch_budget().used(), 0);
  const absl::Status old = factor->Begin(Header(*factor, 1, 2), first.get()).status();
  EXPECT_EQ(ReasonOf(old), reason::kTowerNotOpen);
}

TEST_F(FactorUpdateTest, AnEndedStreamsClaimFalls) {
  const auto factor = Create("f", Golden());
  const auto first = OpenTower(*factor, 0, 1);
  factor->Close(first.get());
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
  OpenTower(*factor, 0, 2);
  EXPECT_TRUE(factor->Describe().towers[0].claimed);
}

TEST_F(FactorUpdateTest, AClientThatReturnsKeepsItsHeldBatches) {
  const auto factor = Create("f", Golden(2));
  const auto first = OpenTower(*factor, 0, 1);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, first.get()).ok());
  factor->Close(first.get());
  const auto second = OpenTower(*factor, 0, 1);
  const auto repeat = factor->Begin(Header(*factor, 1, 2), second.get());
  ASSERT_TRUE(repeat.ok());
  EXPECT_EQ(*repeat, nullptr);
  EXPECT_EQ(factor->Describe().held_batches, 1);
}

TEST_F(FactorUpdateTest, ATakenOverBatchCannotComplete) {
  const auto factor = Create("f", Golden());
  const auto first = OpenTower(*factor, 0, 1);
  auto batch = factor->Begin(Header(*factor, 1, 2), first.get());
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(Fill(**batch, golden_batch_, 2).ok());
  OpenTower(*factor, 0, 2, /*take_over=*/true);
  const absl::Status status = (*batch)->Complete(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), reason::kTowerClaimed);
  EXPECT_EQ(factor->Describe().next, 1);
}

TEST_F(FactorUpdateTest, ATowerThatCannotSendTheNextStepIsRefused) {
  const auto factor = Create("f", Golden());
  const absl::Status status =
      factor->Open(0, ClientOf(1), 2, false, std::make_shared<CountingListener>()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
  EXPECT_EQ(
      factor->Open(1, ClientOf(1), 0, false, std::make_shared<CountingListener>()).status().code(),
      absl::StatusCode::kOutOfRange);
}

TEST_F(FactorUpdateTest, ResetEndsBatchesUnderWay) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  auto batch = factor->Begin(Header(*factor, 2, 2), stream.get());
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(Fill(**batch, golden_batch_, 2).ok());
  ASSERT_TRUE(registry_->Reset("f").ok());
  const absl::Status status = (*batch)->Complete(2);
  EXPECT_EQ(ReasonOf(status), reason::kOldIncarnation);
  const FactorInfo info = factor->Describe();
  EXPECT_EQ(info.version, (Version{1001, 77, 0}));
  EXPECT_EQ(info.next, 1);
  EXPECT_EQ(info.total_weight, 0);
  EXPECT_EQ(info.held_bytes, 0);
  EXPECT_FALSE(info.towers[0].claimed);
  EXPECT_THAT(Elements(Read(*factor)), ElementsAreArray(Floats(6, 0)));
}

TEST_F(FactorUpdateTest, ACommitUnderWayIsDiscardedByAReset) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  backend_.Hold();
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  backend_.AwaitEntered();
  ASSERT_TRUE(registry_->Reset("f").ok());
  backend_.Release();
  const auto again = OpenTower(*factor, 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, again.get()).ok());
  const auto read = ReadAfter(*factor, 1);
  EXPECT_THAT(Elements(read), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(read->total_weight, 0.5);
  EXPECT_EQ(read->next, 2);
}

TEST_F(FactorUpdateTest, DeletionTellsWhoeverFeedsIt) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_EQ(stream->calls(), 1);
  EXPECT_TRUE(factor->GetProgress(1).deleted);
  const absl::Status status = factor->Begin(Header(*factor, 1, 2), stream.get()).status();
  EXPECT_EQ(ReasonOf(status), reason::kOldIncarnation);
  EXPECT_THAT(std::string(status.message()), HasSubstr("deleted"));
}

class SmallBatchBudgetTest : public FactorTest {
 protected:
  // A batch of 2 rows with 2 inputs and 2 outputs holds 2·(1 + 1) cache lines.
  static constexpr int64_t kBatch = 256;
  SmallBatchBudgetTest() : FactorTest({.state_budget = 1 << 20, .batch_budget = 5 * kBatch}) {}
};

TEST_F(SmallBatchBudgetTest, AnOpenStepHasRoomForAllTowers) {
  const auto f = Create("f", Golden(2));
  const auto g = Create("g", Golden(2));
  const auto f0 = OpenTower(*f, 0, 1), f1 = OpenTower(*f, 1, 2);
  const auto g0 = OpenTower(*g, 0, 1);
  ASSERT_TRUE(Send(*f, Header(*f, 1, 2, 0), golden_batch_, f0.get()).ok());
  ASSERT_TRUE(Send(*f, Header(*f, 2, 2, 0), golden_batch_, f0.get()).ok());
  const absl::Status full = Send(*g, Header(*g, 1, 2, 0), golden_batch_, g0.get());
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), reason::kBatchBudget);
  EXPECT_TRUE(GetErrorDetails(full)->retry_after.has_value());
  EXPECT_EQ(g->Describe().held_bytes, 0);
  // What was let in can be completed.
  ASSERT_TRUE(Send(*f, Header(*f, 1, 2, 1), golden_batch_, f1.get()).ok());
  ASSERT_TRUE(ReadAfter(*f, 1).ok());
  EXPECT_TRUE(Send(*g, Header(*g, 1, 2, 0), golden_batch_, g0.get()).ok());
}

TEST_F(SmallBatchBudgetTest, WhatCanNeverFitIsRefusedWithoutARetryDelay) {
  const auto factor = Create("f", Golden(2));
  const auto stream = OpenTower(*factor, 0);
  const absl::Status status = factor->Begin(Header(*factor, 1, 6), stream.get()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(GetErrorDetails(status)->retry_after.has_value());
  EXPECT_THAT(std::string(status.message()), HasSubstr("never"));
  EXPECT_EQ(factor->Describe().towers[0].received_through, 0);
}

// Integer values: a lost or doubled batch, or one out of its place, would show in the bits.
TEST_F(FactorUpdateTest, BitsDoNotDependOnWhoComesFirst) {
  constexpr int kTowers = 4, kSteps = 25;
  const auto batch_of = [](int64_t step, int tower) {
    Floats batch(8);
    for (int i = 0; i < 8; ++i) batch[i] = 0.1f * ((step * 31 + tower * 7 + i * 3) % 11);
    return batch;
  };
  Floats expected;
  for (int run = 0; run < Repetitions(4, 500); ++run) {
    const auto factor = Create("run/" + std::to_string(run), Golden(kTowers));
    std::vector<std::thread> towers;
    for (int t = 0; t < kTowers; ++t) {
      towers.emplace_back([&, t] {
        const auto stream = OpenTower(*factor, t, t + 1);
        for (int64_t step = 1; step <= kSteps;) {
          const absl::Status status =
              Send(*factor, Header(*factor, step, 2, t), batch_of(step, t), stream.get());
          if (status.ok()) {
            ++step;
          } else {
            ASSERT_EQ(ReasonOf(status), reason::kBeyondWindow) << status;
            std::this_thread::yield();
          }
        }
      });
    }
    for (std::thread& tower : towers) tower.join();
    const Floats got = Elements(ReadAfter(*factor, kSteps));
    ASSERT_FALSE(got.empty());
    if (run == 0) expected = got;
    EXPECT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace fisherd::core
