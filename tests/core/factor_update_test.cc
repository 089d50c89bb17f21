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
  EXPECT_EQ(again->pending, nullptr) << "to be read and discarded";
  EXPECT_FALSE(again->on_hold);
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
  EXPECT_EQ(factor->Describe().held_batches, 0);
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
  const Progress progress = factor->GetProgress(0, 1);
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
  const absl::Status refused = factor->Open({.tower = 0, .client = ClientOf(2)}, second).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused), reason::kTowerClaimed);
  EXPECT_TRUE(factor->IsOwner(0, first.get()));
  EXPECT_EQ(factor->Describe().held_batches, 1);

  ASSERT_TRUE(factor->Open({.tower = 0, .client = ClientOf(2), .take_over = true}, second).ok());
  first->AwaitCalls(1);  // it is told
  EXPECT_EQ(factor->Describe().held_batches, 0) << "the old owner's batches go";
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
  EXPECT_EQ(repeat->pending, nullptr);
  EXPECT_EQ(factor->Describe().held_batches, 1);
}

TEST_F(FactorUpdateTest, ATakenOverBatchCannotComplete) {
  const auto factor = Create("f", Golden());
  const auto first = OpenTower(*factor, 0, 1);
  auto batch = factor->Begin(Header(*factor, 1, 2), first.get());
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(Fill(*batch->pending, golden_batch_, 2).ok());
  OpenTower(*factor, 0, 2, /*take_over=*/true);
  const absl::Status status = batch->pending->Complete(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), reason::kTowerClaimed);
  EXPECT_EQ(factor->Describe().next, 1);
}

class SmallStepTest : public FactorTest {
 protected:
  // A golden batch of two rows, onto six elements.
  SmallStepTest()
      : FactorTest({.state_budget = 1 << 20, .batch_budget = 1 << 20, .small_work = 18}) {}

  SmallCommit Complete(const std::shared_ptr<Factor>& factor, int64_t step, int64_t rows = 2) {
    if (stream_ == nullptr) stream_ = OpenTower(*factor, 0);
    auto batch = factor->Begin(Header(*factor, step, rows), stream_.get());
    EXPECT_TRUE(batch.ok()) << batch.status();
    Floats elements = golden_batch_;
    elements.resize(rows * 4, 1);
    EXPECT_TRUE(Fill(*batch->pending, elements, rows).ok());
    SmallCommit commit;
    EXPECT_TRUE(batch->pending->Complete(rows, &commit).ok());
    return commit;
  }

  std::shared_ptr<CountingListener> stream_;
};

TEST_F(SmallStepTest, IsLeftToWhoCompletesIt) {
  const auto factor = Create("f", Golden());
  const SmallCommit commit = Complete(factor, 1);
  ASSERT_TRUE(commit);
  EXPECT_EQ(factor->Describe().next, 1) << "nobody else does it";
  commit();
  EXPECT_EQ(factor->Describe().next, 2);
  EXPECT_EQ(Elements(Read(*factor)), golden_covariance_);
  EXPECT_EQ(stream_->calls(), 1) << "told before the call has returned";
}

TEST_F(SmallStepTest, TakesThoseBehindItAlong) {
  const auto factor = Create("f", Golden());
  const SmallCommit commit = Complete(factor, 1);
  EXPECT_FALSE(Complete(factor, 2)) << "one at a time";
  commit();
  EXPECT_TRUE(ReadAfter(*factor, 2).ok());
}

TEST_F(SmallStepTest, ALargeOneGoesToThePool) {
  const auto factor = Create("f", Golden());
  EXPECT_FALSE(Complete(factor, 1, 3));
  EXPECT_TRUE(ReadAfter(*factor, 1).ok());
}

TEST_F(SmallStepTest, OneWithResultsToComputeGoesToThePool) {
  const auto factor = Create("f", Golden());
  const OperatorSpec cholesky{.kind = OperatorKind::kCholesky, .damping = "d"};
  ASSERT_TRUE(registry_->dampings().Set("d", 0.5).ok());
  ASSERT_TRUE(factor->Register(cholesky, {.kind = RefreshKind::kEveryNSteps, .steps = 1}).ok());
  EXPECT_FALSE(Complete(factor, 1));
  EXPECT_TRUE(ReadAfter(*factor, 1).ok());
}

TEST_F(FactorUpdateTest, NobodyOpensATowerThatIsNot) {
  const auto factor = Create("f", Golden());
  const auto stream = std::make_shared<CountingListener>();
  EXPECT_EQ(factor->Open({.tower = 1, .client = ClientOf(1)}, stream).status().code(),
            absl::StatusCode::kOutOfRange);
}

TEST_F(FactorUpdateTest, ResetEndsBatchesUnderWay) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  auto batch = factor->Begin(Header(*factor, 2, 2), stream.get());
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(Fill(*batch->pending, golden_batch_, 2).ok());
  ASSERT_TRUE(registry_->Reset("f").ok());
  const absl::Status status = batch->pending->Complete(2);
  EXPECT_EQ(ReasonOf(status), reason::kOldIncarnation);
  const FactorInfo info = factor->Describe();
  EXPECT_EQ(info.version, (Version{1001, 77, 0}));
  EXPECT_EQ(info.next, 1);
  EXPECT_EQ(info.total_weight, 0);
  EXPECT_EQ(info.held_bytes, 0);
  EXPECT_FALSE(info.towers[0].claimed);
  EXPECT_THAT(Elements(Read(*factor)), ElementsAreArray(Floats(6, 0)));
}

// Room for two batches of the golden example, and not for three.
class RoomForTwoTest : public FactorTest {
 protected:
  RoomForTwoTest()
      : FactorTest(
            {.state_budget = 1 << 20, .batch_budget = 600, .gather_timeout = absl::Hours(1)}) {}
};

// Room comes, and a batch that comes first takes it: whoever else waited for the step is told too.
TEST_F(RoomForTwoTest, AStepThatABatchOpensIsToldToThoseOnHold) {
  const auto other = Create("other", Golden());
  const auto factor = Create("f", Golden(2));
  const auto stream = OpenTower(*other, 0);
  const auto a = OpenTower(*factor, 0, 1), b = OpenTower(*factor, 1, 2);
  const auto in = other->Begin(Header(*other, 1, 2), stream.get());
  ASSERT_TRUE(in.ok() && in->pending != nullptr);
  for (const auto& [tower, listener] : {std::pair(0, a), std::pair(1, b)}) {
    EXPECT_TRUE(factor->Begin(Header(*factor, 1, 2, tower), listener.get())->on_hold);
  }
  // The pool is busy, so that nobody opens the step before the batch comes again.
  std::promise<void> idle;
  std::shared_future<void> until_idle = idle.get_future().share();
  for (int i = 0; i < 2; ++i) pool_->Schedule([until_idle] { until_idle.wait(); });
  other->Retire();
  const int told = a->calls();
  const auto again = factor->Begin(Header(*factor, 1, 2, 1), b.get());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->on_hold);
  idle.set_value();
  a->AwaitCalls(told + 1);
  EXPECT_EQ(factor->GetProgress(0, 1).open_through, 1);
}

TEST_F(FactorUpdateTest, WhoTakesOverDuringACommitBeginsAfterIt) {
  const auto factor = Create("f", Golden());
  const auto old = OpenTower(*factor, 0, 1);
  const auto open = [&](int client, int64_t from) {
    return factor->Open(
        {.tower = 0, .client = ClientOf(client), .from = from, .through = from, .take_over = true},
        std::make_shared<CountingListener>());
  };
  backend_.Hold();
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, old.get()).ok());
  backend_.AwaitEntered();
  EXPECT_EQ(open(1, 1)->first, 1) << "it has sent step 1 itself";
  const auto progress = open(2, 0);
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(progress->next, 1);
  EXPECT_EQ(progress->first, 2);
  backend_.Release();
  EXPECT_EQ(ReadAfter(*factor, 1)->steps_committed, 1);
  EXPECT_EQ(open(3, 0)->first, 2);
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
  EXPECT_TRUE(factor->GetProgress(0, 1).deleted);
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

TEST_F(SmallBatchBudgetTest, WhoFindsNoRoomWaitsForItsTurn) {
  const auto f = Create("f", Golden(2));
  const auto g = Create("g", Golden(2));
  const auto f0 = OpenTower(*f, 0, 1), f1 = OpenTower(*f, 1, 2);
  const auto g0 = OpenTower(*g, 0, 1), g1 = OpenTower(*g, 1, 2);
  ASSERT_TRUE(Send(*f, Header(*f, 1, 2, 0), golden_batch_, f0.get()).ok());
  ASSERT_TRUE(Send(*f, Header(*f, 2, 2, 0), golden_batch_, f0.get()).ok());
  const auto held = g->Begin(Header(*g, 1, 2, 0), g0.get());
  ASSERT_TRUE(held.ok());
  EXPECT_TRUE(held->on_hold);
  EXPECT_EQ(held->pending, nullptr);
  EXPECT_EQ(g->GetProgress(0, 1).open_through, 0);
  EXPECT_EQ(g->Describe().held_bytes, 0);
  // What was let in can be completed; then g's step opens, and all of its towers are told.
  ASSERT_TRUE(Send(*f, Header(*f, 1, 2, 1), golden_batch_, f1.get()).ok());
  ASSERT_TRUE(ReadAfter(*f, 1).ok());
  g0->AwaitCalls(1);
  g1->AwaitCalls(1);
  EXPECT_EQ(g->GetProgress(1, 1).open_through, 1);
  EXPECT_TRUE(Send(*g, Header(*g, 1, 2, 0), golden_batch_, g0.get()).ok());
}

TEST_F(SmallBatchBudgetTest, NobodyWaitsBehindOneThatWantsNoRoomAnyMore) {
  const auto f = Create("f", Golden(2)), g = Create("g", Golden(2)), h = Create("h", Golden(1));
  const auto f0 = OpenTower(*f, 0, 1), g0 = OpenTower(*g, 0, 2), h0 = OpenTower(*h, 0, 3);
  for (const int64_t step : {1, 2}) {
    ASSERT_TRUE(Send(*f, Header(*f, step, 2, 0), golden_batch_, f0.get()).ok());
  }
  ASSERT_TRUE(g->Begin(Header(*g, 1, 2, 0), g0.get())->on_hold);
  ASSERT_TRUE(h->Begin(Header(*h, 1, 2, 0), h0.get())->on_hold) << "there is room, but g waits";
  // Nobody can send g's step 1 any more: it ends, and with it what g waited for.
  for (const int tower : {0, 1}) {
    ASSERT_TRUE(g->Open({.tower = tower, .client = ClientOf(2), .from = 2, .through = 2}, g0).ok());
  }
  h0->AwaitCalls(1);
  EXPECT_EQ(h->GetProgress(0, 1).open_through, 1);
  EXPECT_EQ(g->GetProgress(0, 1).next, 2);
}

TEST_F(SmallBatchBudgetTest, ALargerBatchPutsYoungerStepsOnHold) {
  const auto f = Create("f", Golden(2));
  const auto f0 = OpenTower(*f, 0, 1), f1 = OpenTower(*f, 1, 2);
  ASSERT_TRUE(Send(*f, Header(*f, 1, 2, 0), golden_batch_, f0.get()).ok());
  const auto arriving = f->Begin(Header(*f, 2, 2, 0), f0.get());
  ASSERT_TRUE(arriving.ok());
  ASSERT_NE(arriving->pending, nullptr);
  const Floats four = {1, 2, 3, 4, 1, 2, 3, 4, 1, -1, 2, 0.5, 1, -1, 2, 0.5};
  ASSERT_TRUE(Send(*f, Header(*f, 1, 4, 1), four, f1.get()).ok());
  EXPECT_EQ(f0->TakeHold(), std::pair(0, int64_t{2}));
  // Its rows may still come; they count for nothing, and are no error.
  EXPECT_TRUE(Fill(*arriving->pending, golden_batch_, 2).ok());
  EXPECT_TRUE(arriving->pending->Complete(2).ok());
  EXPECT_THAT(Elements(ReadAfter(*f, 1)), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(f->Describe().towers[0].received_through, 1);
}

TEST_F(SmallBatchBudgetTest, AnIdleStepIsClosedAtItsTimeout) {
  FactorSpec spec = Golden(2);
  spec.gather_timeout = absl::Milliseconds(20);
  const auto f = Create("f", spec);
  const auto g = Create("g", Golden(2));
  const auto f0 = OpenTower(*f, 0, 1), g0 = OpenTower(*g, 0, 2);
  {
    const auto first = f->Begin(Header(*f, 1, 4, 0), f0.get());
    ASSERT_TRUE(first.ok());
    ASSERT_NE(first->pending, nullptr);
  }  // abandoned: the step stays open, and holds room for both towers
  ASSERT_TRUE(g->Begin(Header(*g, 1, 2, 0), g0.get())->on_hold);
  g0->AwaitCalls(1);
  EXPECT_EQ(g->GetProgress(0, 1).open_through, 1);
  EXPECT_EQ(f->GetProgress(0, 1).next, 1) << "closed, not ended";
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

// ---- Stragglers

class StragglerTest : public FactorTest {
 protected:
  std::shared_ptr<Factor> CreateWith(GatherPolicy policy, absl::Duration timeout) {
    FactorSpec spec = Golden(2);
    spec.gather_policy = policy;
    spec.gather_timeout = timeout;
    return Create("f", spec);
  }
};

TEST_F(StragglerTest, FailCountsNothingAndTellsEverybody) {
  const auto factor = CreateWith(GatherPolicy::kFail, absl::Milliseconds(20));
  const auto a = OpenTower(*factor, 0, 1), b = OpenTower(*factor, 1, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, a.get()).ok());
  const auto read = ReadAfter(*factor, 1);
  EXPECT_EQ(read->steps_committed, 0);
  EXPECT_EQ(read->version.step, 0);
  for (const int tower : {0, 1}) {
    EXPECT_THAT(factor->GetProgress(tower, 1).missed,
                testing::ElementsAre(StepRun{1, 1, StepOutcome::kFailed}));
  }
  EXPECT_EQ(ReasonOf(Send(*factor, Header(*factor, 1, 2, 1), golden_batch_, b.get())),
            reason::kStepFailed);
}

TEST_F(StragglerTest, PartialCountsWhoHasCome) {
  const auto factor = CreateWith(GatherPolicy::kPartial, absl::Milliseconds(300));
  const auto a = OpenTower(*factor, 0, 1), b = OpenTower(*factor, 1, 2);
  auto straggler = factor->Begin(Header(*factor, 1, 2, 1), b.get());
  ASSERT_TRUE(straggler.ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, a.get()).ok());
  const auto read = ReadAfter(*factor, 1);
  EXPECT_THAT(Elements(read), ElementsAreArray(golden_covariance_)) << "the mean over one tower";
  EXPECT_EQ(read->version.step, 1);
  EXPECT_THAT(factor->GetProgress(0, 1).missed, IsEmpty());
  EXPECT_THAT(factor->GetProgress(1, 1).missed,
              testing::ElementsAre(StepRun{1, 1, StepOutcome::kPartial}));
  ASSERT_TRUE(Fill(*straggler->pending, golden_batch_, 2).ok());
  EXPECT_EQ(ReasonOf(straggler->pending->Complete(2)), reason::kStepLate);
  EXPECT_EQ(ReasonOf(Send(*factor, Header(*factor, 1, 2, 1), golden_batch_, b.get())),
            reason::kStepLate);
  EXPECT_EQ(factor->Describe().steps_partial, 1);
  // Both go on.
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 2, 1), golden_batch_, b.get()).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 2, 0), golden_batch_, a.get()).ok());
  EXPECT_EQ(ReadAfter(*factor, 2)->steps_committed, 2);
}

TEST_F(StragglerTest, ATowerThatCannotSendIsNotWaitedFor) {
  const auto factor = CreateWith(GatherPolicy::kPartial, absl::InfiniteDuration());
  const auto a = OpenTower(*factor, 0, 1);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, a.get()).ok());
  const auto b = std::make_shared<CountingListener>();
  ASSERT_TRUE(factor->Open({.tower = 1, .client = ClientOf(2), .from = 2, .through = 3}, b).ok());
  EXPECT_EQ(ReadAfter(*factor, 1)->version.step, 1);
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 2, 1), golden_batch_, b.get()).ok());
  EXPECT_EQ(factor->Describe().next, 2) << "it waits for tower 0";
}

// ---- Modes

TEST_F(FactorUpdateTest, AsynchronousTowersCountEachByItself) {
  FactorSpec spec = Golden(2);
  spec.update_mode = UpdateMode::kAsynchronous;
  const auto factor = Create("f", spec);
  const auto a = OpenTower(*factor, 0, 1), b = OpenTower(*factor, 1, 2);
  for (const int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(Send(*factor, Header(*factor, step, 2, 0), golden_batch_, a.get()).ok());
  }
  auto read = ReadAfter(*factor, 3);
  EXPECT_THAT(Elements(read), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(read->version.step, 3);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 1), golden_batch_, b.get()).ok());
  read = ReadAfter(*factor, 4);
  EXPECT_EQ(read->version.step, 4) << "a version counts the commits of all";
  EXPECT_EQ(read->total_weight, 0.9375);
  EXPECT_EQ(factor->GetProgress(0, 1).next, 4);
  EXPECT_EQ(factor->GetProgress(1, 1).next, 2);
}

TEST_F(FactorUpdateTest, TowersGrowAndShrinkBetweenSteps) {
  const auto factor = Create("f", Golden(1));
  const auto a = OpenTower(*factor, 0, 1);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, a.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  EXPECT_EQ(factor->SetTowers(0, false).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(factor->SetTowers(2, false).value(), 2);
  const auto b = OpenTower(*factor, 1, 2);
  EXPECT_EQ(factor->GetProgress(1, 1).first, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 2, 0), golden_batch_, a.get()).ok());
  EXPECT_EQ(factor->Describe().next, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 2, 2, 1), golden_batch_, b.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 2).ok());
  // Back to one while tower 0's batch waits: it is put on hold, and then a step of its own.
  ASSERT_TRUE(Send(*factor, Header(*factor, 3, 2, 0), golden_batch_, a.get()).ok());
  ASSERT_EQ(factor->SetTowers(1, /*now=*/true).value(), 3);
  EXPECT_EQ(a->TakeHold(), std::pair(0, int64_t{3}));
  ASSERT_TRUE(Send(*factor, Header(*factor, 3, 2, 0), golden_batch_, a.get()).ok());
  EXPECT_THAT(Elements(ReadAfter(*factor, 3)), ElementsAreArray(golden_covariance_));
  EXPECT_EQ(factor->GetProgress(1, 1).first, 0) << "tower 1 is of no step to come";
  EXPECT_THAT(factor->GetProgress(1, 2).missed,
              testing::ElementsAre(StepRun{3, 3, StepOutcome::kPartial}))
      << "what it had on its way did not count";
  EXPECT_THAT(factor->GetProgress(0, 1).missed, IsEmpty());
  EXPECT_EQ(Send(*factor, Header(*factor, 4, 2, 1), golden_batch_, b.get()).code(),
            absl::StatusCode::kOutOfRange);
}

// ---- Contributions

TEST_F(FactorUpdateTest, AContributionCountsAsItsBatchWould) {
  const auto factor = Create("f", Golden(2));
  const auto a = OpenTower(*factor, 0, 1), b = OpenTower(*factor, 1, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, a.get()).ok());
  BatchHeader header = Header(*factor, 1, 2, 1);
  header.form = BatchForm::kContribution;
  header.tensors = {{TensorRole::kContribution, 0, DataType::kFloat32, {3, 2}}};
  ASSERT_TRUE(Send(*factor, header, golden_covariance_, b.get()).ok());
  EXPECT_THAT(Elements(ReadAfter(*factor, 1)), ElementsAreArray(golden_covariance_));
}

// ---- Restarts

// Keeps the image of one step, and every outcome.
class OneImageStore : public FactorStore {
 public:
  explicit OneImageStore(int64_t step) : step_(step) {}
  absl::Status CheckWritable() const override { return absl::OkStatus(); }
  absl::Status RecordFactor(const FactorImage&) override { return absl::OkStatus(); }
  absl::Status RecordDeletion(std::string_view) override { return absl::OkStatus(); }
  absl::Status RecordDamping(std::string_view, std::optional<double>) override {
    return absl::OkStatus();
  }
  void LogStep(StepRecord, Done) override { FAIL() << "no factor is at level SYNC"; }
  void RecordOutcome(const std::string&, uint64_t, int, const StepRun& run, Done done) override {
    {
      MutexLock lock(&mutex_);
      outcomes_.push_back(run);
    }
    done(absl::OkStatus());
  }
  void WantDurable(const std::string&) override {}
  void StepEnded(const std::shared_ptr<Factor>& factor) override {
    const absl::StatusOr<FactorImage> image = factor->TryImage();
    ASSERT_TRUE(image.ok()) << image.status();
    const bool save = image->ledgers[0].next() - 1 == step_;
    {
      MutexLock lock(&mutex_);
      if (save) {
        image_ = *image;
        std::shared_ptr<Matrix> copy = Matrix::New(image->state->shape());
        EXPECT_EQ(copy->CopyFrom(*image->state), absl::OkStatus());
        image_->state = std::move(copy);
      }
      ++ended_;
      changed_.NotifyAll();
    }
    if (save) factor->SetDurable(*image);
  }
  // The image of that step, once so many steps have ended in all.
  FactorImage ImageAfter(int ended) {
    MutexLock lock(&mutex_);
    while (ended_ < ended) changed_.Wait(&mutex_);
    return *image_;
  }
  // What comes back after a restart: the state of that step, and what was told of later ones.
  FactorImage Image() {
    MutexLock lock(&mutex_);
    FactorImage image = *image_;
    Ledger ledger;
    for (int64_t step = 1; step <= 100; ++step) {
      const auto told = std::find_if(outcomes_.begin(), outcomes_.end(),
                                     [&](const StepRun& run) { return run.first == step; });
      if (told != outcomes_.end()) {
        ledger.Record(told->outcome, told->counted);
      } else {
        ledger.Record(StepOutcome::kWhole);
      }
    }
    ledger.RollBack(step_ + 1);
    image.ledgers = {ledger};
    return image;
  }

 private:
  const int64_t step_;
  Mutex mutex_;
  CondVar changed_;
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<StepRun> outcomes_ ABSL_GUARDED_BY(mutex_);
  std::optional<FactorImage> image_ ABSL_GUARDED_BY(mutex_);
};

class RestartTest : public FactorTest {
 protected:
  RestartTest()
      : FactorTest({.state_budget = 1 << 20, .batch_budget = 1 << 20, .store = &store_}) {}
  // What runs on them uses the store and the registries.
  ~RestartTest() override {
    timers_.reset();
    pool_.reset();
  }

  static absl::Status RestoreImage(FactorRegistry& registry, const FactorImage& image) {
    return registry.Restore(
        image, [&](const Kind&, Backend&, Matrix& state) { return state.CopyFrom(*image.state); });
  }

  // Step by step: [1, 1], so that a batch (a, g) counts (a·g)².
  absl::Status SendNumber(Factor& factor, int64_t step, int tower, float x,
                          const std::shared_ptr<CountingListener>& stream) {
    return Send(factor, Header(factor, step, 1, tower), {x, 1}, stream.get());
  }

  OneImageStore store_{2};
  std::optional<FactorRegistry> after_;  // the restart
};

TEST_F(RestartTest, WhatWasToldStaysTrueAndTheRestCountsAnew) {
  FactorSpec spec = Spec(1, 1, false, 2);
  spec.zero_debias = false;
  spec.gather_policy = GatherPolicy::kPartial;
  spec.gather_timeout = absl::Milliseconds(300);
  const auto before = Create("f", spec);
  auto a = OpenTower(*before, 0, 1), b = OpenTower(*before, 1, 2);
  for (const int64_t step : {1, 2}) {
    ASSERT_TRUE(SendNumber(*before, step, 0, 1, a).ok());
    ASSERT_TRUE(SendNumber(*before, step, 1, 3, b).ok());
  }
  ASSERT_EQ(ReadAfter(*before, 2)->steps_committed, 2);
  while (before->GetProgress(0, 1).durable < 2) std::this_thread::yield();  // a moment later
  ASSERT_TRUE(SendNumber(*before, 3, 0, 5, a).ok());                        // alone: partial
  ASSERT_EQ(ReadAfter(*before, 3)->steps_committed, 3);
  EXPECT_EQ(before->GetProgress(0, 1).durable, 2) << "not on disk";
  const Floats partial = Elements(Read(*before));

  after_.emplace(RegistryOptions{.backend = &backend_,
                                 .pool = &*pool_,
                                 .state_budget = 1 << 20,
                                 .batch_budget = 1 << 20,
                                 .timers = &*timers_,
                                 .epoch = 78,
                                 .first_incarnation = 2000});
  ASSERT_TRUE(RestoreImage(*after_, store_.Image()).ok());
  const auto factor = *after_->Find("f");
  EXPECT_EQ(factor->Describe().version, (Version{1000, 77, 2})) << "the epoch that committed it";
  EXPECT_EQ(factor->Describe().steps_committed, 2);
  a = OpenTower(*factor, 0, 1);
  b = OpenTower(*factor, 1, 2);
  const Progress progress = factor->GetProgress(1, 1);
  EXPECT_EQ(progress.epoch, 78);
  EXPECT_EQ(progress.next, 3);
  EXPECT_THAT(progress.missed, testing::ElementsAre(StepRun{3, 3, StepOutcome::kPartial}));
  // Tower 1 was told that it did not count in step 3: it does not now, either.
  EXPECT_EQ(ReasonOf(SendNumber(*factor, 3, 1, 7, b)), reason::kStepLate);
  ASSERT_TRUE(SendNumber(*factor, 4, 1, 3, b).ok());
  ASSERT_TRUE(SendNumber(*factor, 3, 0, 5, a).ok());
  const auto read = ReadAfter(*factor, 3);
  EXPECT_EQ(Elements(read), partial) << "the same bits";
  EXPECT_EQ(read->version, (Version{1000, 78, 3}));
  ASSERT_TRUE(SendNumber(*factor, 4, 0, 1, a).ok());
  EXPECT_EQ(ReadAfter(*factor, 4)->steps_committed, 4);
  before->Retire();
}

// Towers that were added are there after a restart, in either mode; those removed are not.
TEST_F(RestartTest, ItHasTheTowersThatItHad) {
  int ended = 0;
  for (const auto mode : {UpdateMode::kSynchronous, UpdateMode::kAsynchronous}) {
    FactorSpec spec = Spec(1, 1, false, 2);
    spec.update_mode = mode;
    for (const int towers : {1, 4}) {
      const std::string name = std::to_string(static_cast<int>(mode)) + std::to_string(towers);
      const auto before = Create(name, spec);
      ASSERT_EQ(*before->SetTowers(towers, true), 1);
      std::vector<std::shared_ptr<CountingListener>> streams;
      for (int tower = 0; tower < towers; ++tower) {
        streams.push_back(OpenTower(*before, tower, tower + 1));
        for (const int64_t step : {1, 2}) {
          ASSERT_TRUE(SendNumber(*before, step, tower, 1, streams.back()).ok());
        }
      }
      ended += mode == UpdateMode::kSynchronous ? 2 : 2 * towers;
      FactorRegistry after({.backend = &backend_,
                            .pool = &*pool_,
                            .state_budget = 1 << 20,
                            .batch_budget = 1 << 20,
                            .timers = &*timers_,
                            .first_incarnation = 2000});
      ASSERT_TRUE(RestoreImage(after, store_.ImageAfter(ended)).ok());
      const auto factor = *after.Find(name);
      EXPECT_EQ(factor->towers(), towers) << name;
      EXPECT_EQ(std::ssize(factor->Describe().towers), towers) << name;
      const auto last = OpenTower(*factor, towers - 1);
      EXPECT_EQ(factor->GetProgress(towers - 1, 1).next, 3) << name;
      EXPECT_EQ(factor->GetProgress(towers - 1, 1).first, 3) << name;
      EXPECT_FALSE(factor->Open({.tower = towers, .client = ClientOf(9)}, last).ok()) << name;
      before->Retire();
    }
  }
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
