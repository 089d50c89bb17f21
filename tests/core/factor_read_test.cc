// Reads of whole versions, and registered results.

#include <gmock/gmock.h>

#include <future>
#include <thread>

#include "tests/core/factor_harness.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

OperatorSpec Matpower(double exponent, Damping damping) {
  return {.kind = OperatorKind::kMatpower, .exponent = exponent, .damping = std::move(damping)};
}

class FactorReadTest : public FactorTest {
 protected:
  using FactorTest::FactorTest;

  void SetUp() override {
    factor_ = Create("f", Golden());
    stream_ = OpenTower(*factor_, 0);
  }
  // Commits a step whose covariance is k²·golden.
  void Step(int64_t step, float k = 1, double decay = 0) {
    BatchHeader header = Header(*factor_, step, 2);
    header.decay = decay;
    Floats batch = golden_batch_;
    for (int i = 4; i < 8; ++i) batch[i] *= k;
    ASSERT_TRUE(Send(*factor_, header, batch, stream_.get()).ok());
  }
  void StepAndWait(int64_t step, float k = 1, double decay = 0) {
    Step(step, k, decay);
    while (factor_->Describe().next <= step) std::this_thread::yield();
  }
  Floats Golden2(float k) const {
    Floats result = golden_covariance_;
    for (float& x : result) x *= k * k;
    return result;
  }
  using FactorTest::Golden;

  std::shared_ptr<Factor> factor_;
  std::shared_ptr<CountingListener> stream_;
};

TEST_F(FactorReadTest, BeforeTheFirstStepItIsTheInitialCovariance) {
  const auto read = Read(*factor_);
  EXPECT_THAT(Elements(read), ElementsAreArray(Floats(6, 0)));
  EXPECT_EQ(read->steps_committed, 0);
  EXPECT_EQ(read->version, (Version{1000, 77, 0}));
  FactorSpec ones = Golden();
  ones.zero_debias = false;
  ones.initial_covariance = InitialCovariance::kOnes;
  EXPECT_THAT(Elements(Read(*Create("ones", ones))), ElementsAreArray(Floats(6, 1)));
}

TEST_F(FactorReadTest, WaitsForMinVersion) {
  std::promise<absl::StatusOr<ReadResult>> answer;
  auto future = answer.get_future();
  factor_->StartRead({.min_version = MinVersion{1000, 2}},
                     [&](absl::StatusOr<ReadResult> r) { answer.set_value(std::move(r)); });
  StepAndWait(1);
  EXPECT_EQ(future.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  StepAndWait(2, 2);
  const auto read = future.get();
  ASSERT_TRUE(read.ok());
  EXPECT_THAT(Elements(read), ElementsAreArray(Golden2(2)));
}

TEST_F(FactorReadTest, AnotherIncarnationIsRefusedAtOnceAndByAReset) {
  const auto other = Read(*factor_, {.min_version = MinVersion{999, 1}});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(other.status()), reason::kOldIncarnation);
  std::promise<absl::Status> answer;
  factor_->StartRead({.min_version = MinVersion{1000, 1}},
                     [&](const absl::StatusOr<ReadResult>& r) { answer.set_value(r.status()); });
  ASSERT_TRUE(registry_->Reset("f").ok());
  EXPECT_EQ(ReasonOf(answer.get_future().get()), reason::kOldIncarnation);
}

TEST_F(FactorReadTest, ADeletedFactorEndsWaitingReads) {
  std::promise<absl::Status> answer;
  factor_->StartRead({.min_version = MinVersion{1000, 1}},
                     [&](const absl::StatusOr<ReadResult>& r) { answer.set_value(r.status()); });
  ASSERT_TRUE(registry_->Delete("f").ok());
  const absl::Status status = answer.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("deleted"));
}

TEST_F(FactorReadTest, ACancelledReadIsAnsweredOnce) {
  std::promise<absl::Status> answer;
  const uint64_t id = factor_->StartRead(
      {.min_version = MinVersion{1000, 9}}, [&](const absl::StatusOr<ReadResult>& r) {
        answer.set_value(r.status());  // a second call would throw
      });
  factor_->CancelRead(id);
  factor_->CancelRead(id);
  EXPECT_EQ(answer.get_future().get().code(), absl::StatusCode::kCancelled);
  factor_->CancelRead(id);
  StepAndWait(1);
}

TEST_F(FactorReadTest, AnUnchangedVersionComesWithoutElements) {
  StepAndWait(1);
  const Version version = Read(*factor_)->version;
  const auto unchanged = Read(*factor_, {.if_version_not = version});
  ASSERT_TRUE(unchanged.ok());
  EXPECT_EQ(unchanged->op, nullptr);
  EXPECT_EQ(unchanged->version, version);
  for (const Version& other : {Version{1000, 77, 2}, Version{1000, 78, 1}, Version{1001, 77, 1}}) {
    EXPECT_NE(Read(*factor_, {.if_version_not = other})->op, nullptr) << "all three are compared";
  }
}

TEST_F(FactorReadTest, AReaderKeepsItsVersionWhileStepsCommit) {
  StepAndWait(1, 1);
  const auto first = Read(*factor_);
  StepAndWait(2, 2);
  StepAndWait(3, 3);
  EXPECT_THAT(Elements(first), ElementsAreArray(Golden2(1)));
  EXPECT_THAT(Elements(Read(*factor_)), ElementsAreArray(Golden2(3)));
  EXPECT_EQ(factor_->Describe().pinned_bytes, 24);
}

TEST_F(FactorReadTest, AtMostTwoOlderVersionsArePinned) {
  StepAndWait(1, 1);
  auto first = Read(*factor_);
  StepAndWait(2, 2);
  auto second = Read(*factor_);
  StepAndWait(3, 3);
  const auto third = Read(*factor_);
  EXPECT_EQ(third->version.step, 2) << "joins the newest pinned one";
  EXPECT_THAT(Elements(third), ElementsAreArray(Golden2(2)));
  EXPECT_EQ(third->current_version.step, 3);
  EXPECT_EQ(factor_->Describe().pinned_bytes, 48);

  // One that needs more waits until a pin is let go.
  std::promise<absl::StatusOr<ReadResult>> answer;
  auto future = answer.get_future();
  factor_->StartRead({.min_version = MinVersion{1000, 3}},
                     [&](absl::StatusOr<ReadResult> r) { answer.set_value(std::move(r)); });
  EXPECT_EQ(future.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  first = absl::CancelledError();
  EXPECT_THAT(Elements(future.get()), ElementsAreArray(Golden2(3)));
}

TEST_F(FactorReadTest, PinsAreGivenBack) {
  const int64_t idle = registry_->state_budget().used();
  StepAndWait(1);
  {
    const auto first = Read(*factor_);
    StepAndWait(2);
    const auto second = Read(*factor_);
    EXPECT_GT(registry_->state_budget().used(), idle);
  }
  EXPECT_EQ(registry_->state_budget().used(), idle);
  EXPECT_EQ(factor_->Describe().pinned_bytes, 0);
  StepAndWait(3, 5);
  EXPECT_THAT(Elements(Read(*factor_)), ElementsAreArray(Golden2(5)));
}

TEST_F(FactorReadTest, AReadWaitsForACommitInPlace) {
  StepAndWait(1, 1);
  backend_.Hold();
  Step(2, 2);
  backend_.AwaitEntered();
  std::promise<absl::StatusOr<ReadResult>> answer;
  auto future = answer.get_future();
  factor_->StartRead({}, [&](absl::StatusOr<ReadResult> r) { answer.set_value(std::move(r)); });
  EXPECT_EQ(future.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  backend_.Release();
  EXPECT_THAT(Elements(future.get()), ElementsAreArray(Golden2(2)));
}

TEST_F(FactorReadTest, AReadDuringACommitBesideSeesTheVersionBefore) {
  StepAndWait(1, 1);
  const auto pin = Read(*factor_);
  backend_.Hold();
  Step(2, 2);
  backend_.AwaitEntered();
  EXPECT_THAT(Elements(Read(*factor_)), ElementsAreArray(Golden2(1)));
  backend_.Release();
  EXPECT_THAT(Elements(ReadAfter(*factor_, 2)), ElementsAreArray(Golden2(2)));
}

TEST_F(FactorReadTest, AResultThatIsNotFiniteIsRefused) {
  const auto result = Read(*factor_, {.op = Matpower(-1, 0.0)});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(result.status()), reason::kNonFiniteResult);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("6"));
  EXPECT_TRUE(Read(*factor_, {.op = Matpower(-1, 0.5)}).ok());
}

TEST_F(FactorReadTest, ADampingThatIsNotSetIsNotFound) {
  const auto result = Read(*factor_, {.op = Matpower(-1, "unset")});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(result.status()), reason::kDampingNotFound);
}

// --- Registered results ---

class RegisteredTest : public FactorReadTest {
 protected:
  using FactorReadTest::FactorReadTest;

  void SetUp() override {
    FactorReadTest::SetUp();
    ASSERT_TRUE(registry_->dampings().Set("d", 0.5).ok());
  }
  absl::StatusOr<RegistrationInfo> Register(RefreshKind kind, int64_t steps = 0) {
    return factor_->Register(op_, {.kind = kind, .steps = steps});
  }
  absl::StatusOr<int> UpdateInverses() {
    std::promise<absl::StatusOr<int>> answer;
    factor_->UpdateInverses([&](absl::StatusOr<int> n) { answer.set_value(std::move(n)); });
    return answer.get_future().get();
  }
  // (golden·k² + λ)^−1 of the first entry.
  static float First(float k, float damping) { return 1 / (18.5f * k * k + damping); }

  const OperatorSpec op_ = Matpower(-1, "d");
};

TEST_F(RegisteredTest, OnReadIsNeverStale) {
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());
  StepAndWait(1);
  auto read = ReadAfter(*factor_, 1, op_);
  EXPECT_TRUE(read->cached);
  EXPECT_EQ(read->version.step, 1);
  EXPECT_EQ(read->damping, 0.5);
  EXPECT_FLOAT_EQ(Elements(read)[0], First(1, 0.5));
  const Floats by_value = Elements(ReadAfter(*factor_, 1, Matpower(-1, 0.5)));
  EXPECT_EQ(Elements(read), by_value) << "the cache is what would be computed";
  StepAndWait(2, 2);
  read = ReadAfter(*factor_, 2, op_);
  EXPECT_EQ(read->version.step, 2);
  EXPECT_FLOAT_EQ(Elements(read)[0], First(2, 0.5));
  ASSERT_TRUE(registry_->dampings().Set("d", 2).ok());
  read = ReadAfter(*factor_, 2, op_);
  EXPECT_EQ(read->damping, 2);
  EXPECT_FLOAT_EQ(Elements(read)[0], First(2, 2));
}

TEST_F(RegisteredTest, EveryNStepsKeepsTheNthVersion) {
  ASSERT_TRUE(Register(RefreshKind::kEveryNSteps, 2).ok());
  StepAndWait(1, 1);
  EXPECT_EQ(ReadAfter(*factor_, 1, op_)->version.step, 1) << "the first read fills it";
  StepAndWait(2, 2);
  EXPECT_EQ(ReadAfter(*factor_, 2, op_)->version.step, 2);
  StepAndWait(3, 3);
  const auto read = ReadAfter(*factor_, 3, op_);
  EXPECT_EQ(read->version.step, 2) << "and says so";
  EXPECT_EQ(read->current_version.step, 3);
  EXPECT_FLOAT_EQ(Elements(read)[0], First(2, 0.5));
  StepAndWait(4, 4);
  EXPECT_FLOAT_EQ(Elements(ReadAfter(*factor_, 4, op_))[0], First(4, 0.5));
}

TEST_F(RegisteredTest, OnRequestWaitsForUpdateInverses) {
  ASSERT_TRUE(Register(RefreshKind::kOnRequest).ok());
  StepAndWait(1, 1);
  EXPECT_EQ(ReadAfter(*factor_, 1, op_)->version.step, 1);
  StepAndWait(2, 2);
  EXPECT_EQ(ReadAfter(*factor_, 2, op_)->version.step, 1);
  EXPECT_EQ(UpdateInverses().value(), 1);
  EXPECT_EQ(ReadAfter(*factor_, 2, op_)->version.step, 2);
  ASSERT_TRUE(registry_->dampings().Set("d", 2).ok());
  EXPECT_EQ(ReadAfter(*factor_, 2, op_)->damping, 0.5) << "the λ it was computed from";
  EXPECT_EQ(UpdateInverses().value(), 1);
  EXPECT_EQ(ReadAfter(*factor_, 2, op_)->damping, 2);
}

TEST_F(RegisteredTest, UpdateInversesTellsWhatCannotBeComputed) {
  ASSERT_TRUE(registry_->dampings().Set("d", 0).ok());
  ASSERT_TRUE(Register(RefreshKind::kOnRequest).ok());
  EXPECT_EQ(ReasonOf(UpdateInverses().status()), reason::kNonFiniteResult);
  EXPECT_EQ(ReasonOf(Read(*factor_, {.op = op_}).status()), reason::kNonFiniteResult);
  StepAndWait(1);
  EXPECT_EQ(UpdateInverses().value(), 1) << "nothing is stuck";
}

TEST_F(RegisteredTest, RegisteringTwiceIsOneCache) {
  const int64_t before = registry_->state_budget().used();
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());
  ASSERT_TRUE(Register(RefreshKind::kEveryNSteps, 3).ok());
  EXPECT_EQ(registry_->state_budget().used(), before + 24);
  const FactorInfo info = factor_->Describe();
  ASSERT_EQ(info.registrations.size(), 1);
  EXPECT_EQ(info.registrations[0].policy, (RefreshPolicy{RefreshKind::kEveryNSteps, 3}));
  EXPECT_EQ(info.estimated_bytes, 72);
  ASSERT_TRUE(factor_->Unregister(op_).ok());
  EXPECT_EQ(registry_->state_budget().used(), before);
  EXPECT_EQ(ReasonOf(factor_->Unregister(op_)), reason::kRegistrationNotFound);
}

TEST_F(RegisteredTest, MatpowerOneIsNeverCached) {
  const OperatorSpec one = Matpower(1, "d");
  const int64_t before = registry_->state_budget().used();
  ASSERT_TRUE(factor_->Register(one, {.kind = RefreshKind::kEveryNSteps, .steps = 10}).ok());
  EXPECT_EQ(registry_->state_budget().used(), before);
  StepAndWait(1);
  const auto read = ReadAfter(*factor_, 1, one);
  EXPECT_FALSE(read->cached);
  EXPECT_EQ(Elements(read)[0], 19.0f);
  EXPECT_EQ(UpdateInverses().value(), 0);
}

TEST_F(RegisteredTest, RefusesWhatCannotBeRegistered) {
  const auto reason_of = [&](const OperatorSpec& op, RefreshPolicy policy = {}) {
    const absl::Status status = factor_->Register(op, policy).status();
    return std::pair(status.code(), ReasonOf(status));
  };
  const auto bad = std::pair(absl::StatusCode::kInvalidArgument, std::string(reason::kBadArgument));
  EXPECT_EQ(reason_of(OperatorSpec{}), bad);
  EXPECT_EQ(reason_of(Matpower(-1, 0.5)), bad);
  EXPECT_EQ(reason_of(Matpower(HUGE_VAL, "d")), bad);
  EXPECT_EQ(reason_of(op_, {.kind = RefreshKind::kEveryNSteps, .steps = 0}), bad);
  EXPECT_EQ(reason_of(op_, {.kind = RefreshKind::kOnRead, .steps = 1}), bad);
  EXPECT_EQ(reason_of(Matpower(-1, "unset")).second, reason::kDampingNotFound);
  EXPECT_TRUE(factor_->Describe().registrations.empty());
}

TEST_F(RegisteredTest, AResetEmptiesTheCaches) {
  ASSERT_TRUE(Register(RefreshKind::kOnRequest).ok());
  StepAndWait(1);
  ASSERT_TRUE(ReadAfter(*factor_, 1, op_).ok());
  ASSERT_TRUE(registry_->Reset("f").ok());
  const auto read = Read(*factor_, {.op = op_});
  EXPECT_EQ(read->version, (Version{1001, 77, 0}));
  EXPECT_EQ(Elements(read)[0], 2.0f);
}

TEST_F(RegisteredTest, AReaderKeepsAResultThatIsReplaced) {
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());
  StepAndWait(1, 1);
  const auto first = ReadAfter(*factor_, 1, op_);
  StepAndWait(2, 2);
  EXPECT_FLOAT_EQ(Elements(ReadAfter(*factor_, 2, op_))[0], First(2, 0.5));
  EXPECT_FLOAT_EQ(Elements(first)[0], First(1, 0.5));
}

class TightStateTest : public RegisteredTest {
 protected:
  // Room for the state, one pinned version and one result of 24 bytes.
  TightStateTest() : RegisteredTest({.state_budget = 72, .batch_budget = 1 << 20}) {}
};

TEST_F(TightStateTest, WithoutRoomForTheCacheTheReadIsStillRight) {
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());
  StepAndWait(1, 1);
  const auto first = ReadAfter(*factor_, 1, op_);
  ASSERT_TRUE(first->cached);
  StepAndWait(2, 2);
  const auto second = ReadAfter(*factor_, 2, op_);
  EXPECT_FALSE(second->cached);
  EXPECT_FLOAT_EQ(Elements(second)[0], First(2, 0.5));
}

TEST_F(TightStateTest, WithoutRoomForASecondPinAReadJoinsTheFirst) {
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());  // takes the last room
  StepAndWait(1, 1);
  const auto first = Read(*factor_);
  StepAndWait(2, 2);
  EXPECT_EQ(Read(*factor_)->version.step, 1);
}

TEST_F(TightStateTest, RefusesWhatDoesNotFit) {
  ASSERT_TRUE(Register(RefreshKind::kOnRead).ok());
  const absl::Status more =
      factor_->Register(Matpower(-0.5, "d"), {.kind = RefreshKind::kOnRead}).status();
  EXPECT_EQ(more.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(more), reason::kStateBudget);
  EXPECT_EQ(factor_->Describe().registrations.size(), 1);
}

}  // namespace
}  // namespace fisherd::core
