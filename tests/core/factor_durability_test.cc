// What factors and their registry tell a store, and when they wait for it.

#include <deque>

#include "tests/core/factor_harness.h"

namespace fisherd::core {
namespace {

// Remembers what it was told, and answers when it is let.
class ScriptedStore : public FactorStore {
 public:
  absl::Status CheckWritable() const override {
    MutexLock lock(&mutex_);
    return writable_;
  }
  absl::Status RecordFactor(const FactorImage& image) override {
    MutexLock lock(&mutex_);
    if (!writable_.ok()) return writable_;
    lives_.push_back(image);
    return absl::OkStatus();
  }
  absl::Status RecordDeletion(std::string_view name) override {
    MutexLock lock(&mutex_);
    if (!writable_.ok()) return writable_;
    deleted_.emplace_back(name);
    return absl::OkStatus();
  }
  absl::Status RecordDamping(std::string_view name, std::optional<double> value) override {
    MutexLock lock(&mutex_);
    if (!writable_.ok()) return writable_;
    dampings_.emplace_back(name, value);
    return absl::OkStatus();
  }
  void RecordOutcome(const std::string&, uint64_t, int ledger, const StepRun& run,
                     Done done) override {
    MutexLock lock(&mutex_);
    outcomes_.push_back({ledger, run});
    calls_.push_back(std::move(done));
    changed_.NotifyAll();
  }
  void LogStep(StepRecord record, Done done) override {
    MutexLock lock(&mutex_);
    Logged logged{record.run, record.ended, record.version, record.total_weight, {}};
    if (record.state != nullptr) logged.state = FloatsOf(*record.state);
    log_.push_back(std::move(logged));
    calls_.push_back(std::move(done));
    changed_.NotifyAll();
  }
  void WantDurable(const std::string&) override {}
  void StepEnded(const std::shared_ptr<Factor>& factor) override {
    const auto image = factor->TryImage();
    MutexLock lock(&mutex_);
    images_at_ends_.push_back(image.ok() ? image->ended() : -1);
    changed_.NotifyAll();
  }

  // Answers the oldest call that waits; waits for one.
  void Answer(const absl::Status& status = absl::OkStatus()) {
    Done done;
    {
      MutexLock lock(&mutex_);
      while (calls_.empty()) changed_.Wait(&mutex_);
      done = std::move(calls_.front());
      calls_.pop_front();
    }
    done(status);
  }
  void AwaitCall() {
    MutexLock lock(&mutex_);
    while (calls_.empty()) changed_.Wait(&mutex_);
  }
  void AwaitEnds(size_t ends) {
    MutexLock lock(&mutex_);
    while (images_at_ends_.size() < ends) changed_.Wait(&mutex_);
  }
  void SetWritable(absl::Status status) {
    MutexLock lock(&mutex_);
    writable_ = std::move(status);
  }

  struct Logged {
    StepRun run;
    int64_t ended;
    Version version;
    double total_weight;
    Floats state;
  };
  std::vector<FactorImage> lives() const {
    MutexLock lock(&mutex_);
    return lives_;
  }
  std::vector<std::string> deleted() const {
    MutexLock lock(&mutex_);
    return deleted_;
  }
  std::vector<std::pair<std::string, std::optional<double>>> dampings() const {
    MutexLock lock(&mutex_);
    return dampings_;
  }
  std::vector<std::pair<int, StepRun>> outcomes() const {
    MutexLock lock(&mutex_);
    return outcomes_;
  }
  std::vector<Logged> log() const {
    MutexLock lock(&mutex_);
    return log_;
  }
  std::vector<int64_t> images_at_ends() const {
    MutexLock lock(&mutex_);
    return images_at_ends_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  absl::Status writable_ ABSL_GUARDED_BY(mutex_);
  std::vector<FactorImage> lives_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> deleted_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<std::string, std::optional<double>>> dampings_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<int, StepRun>> outcomes_ ABSL_GUARDED_BY(mutex_);
  std::vector<Logged> log_ ABSL_GUARDED_BY(mutex_);
  std::deque<Done> calls_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> images_at_ends_ ABSL_GUARDED_BY(mutex_);
};

class StoreHolder {
 protected:
  ScriptedStore store_;
};

class FactorDurabilityTest : protected StoreHolder, public FactorTest {
 protected:
  FactorDurabilityTest()
      : FactorTest({.state_budget = 1 << 20,
                    .batch_budget = 1 << 20,
                    .store = &store_,
                    .durability = DurabilityLevel::kSnapshot}) {}

  std::shared_ptr<Factor> CreateAt(DurabilityLevel level, int towers = 1) {
    FactorSpec spec = Golden(towers);
    spec.durability = level;
    return Create("f", spec);
  }
  absl::Status SendStep(Factor& factor, int64_t step, const CountingListener& stream) {
    return Send(factor, Header(factor, step, 2), golden_batch_, &stream);
  }
};

TEST_F(FactorDurabilityTest, BelowSyncAStepIsToldBeforeItIsDurable) {
  const auto factor = CreateAt(DurabilityLevel::kUnset);
  EXPECT_EQ(factor->spec().durability, DurabilityLevel::kSnapshot);
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  EXPECT_EQ(factor->GetProgress(0, 1).next, 2);
  EXPECT_EQ(factor->GetProgress(0, 1).durable, 0);
  store_.AwaitEnds(1);
  EXPECT_EQ(store_.images_at_ends(), std::vector<int64_t>{1});
  EXPECT_TRUE(store_.log().empty());
}

TEST_F(FactorDurabilityTest, DurableAdvancesLaterAndIsToldToTheTowers) {
  const auto factor = CreateAt(DurabilityLevel::kSnapshot);
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.AwaitEnds(1);
  FactorImage image = *factor->TryImage();
  EXPECT_EQ(image.ended(), 1);
  const int calls = stream->calls();
  factor->SetDurable(image);
  stream->AwaitCalls(calls + 1);
  EXPECT_EQ(factor->GetProgress(0, 1).durable, 1);
  // An image of what was before a reset says nothing of what is after it.
  ASSERT_TRUE(registry_->Reset("f").ok());
  factor->SetDurable(image);
  EXPECT_EQ(factor->GetProgress(0, 1).durable, 0);
}

TEST_F(FactorDurabilityTest, AnImageKeepsItsVersionWhateverComesAfterIt) {
  const auto factor = CreateAt(DurabilityLevel::kSnapshot);
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.AwaitEnds(1);
  const FactorImage image = *factor->TryImage();
  const Floats before = FloatsOf(*image.state);
  ASSERT_TRUE(SendStep(*factor, 2, *stream).ok());
  store_.AwaitEnds(2);
  ASSERT_TRUE(registry_->Reset("f").ok());
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_EQ(FloatsOf(*image.state), before);
  EXPECT_EQ(image.version.step, 1);
}

TEST_F(FactorDurabilityTest, AnImageWaitsForTheStepThatOverwritesTheState) {
  const auto factor = CreateAt(DurabilityLevel::kSnapshot);
  const auto stream = OpenTower(*factor, 0);
  backend_.Hold();
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  backend_.AwaitEntered();
  EXPECT_EQ(factor->TryImage().status().code(), absl::StatusCode::kUnavailable);
  std::promise<absl::StatusOr<FactorImage>> given;
  factor->StartImage([&](absl::StatusOr<FactorImage> image) { given.set_value(std::move(image)); });
  backend_.Release();
  const auto image = given.get_future().get();
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->version.step, 1);
  EXPECT_EQ(image->ledgers[0].next(), 2);
}

TEST_F(FactorDurabilityTest, UnderSyncNobodySeesAStepBeforeItIsLogged) {
  const auto factor = CreateAt(DurabilityLevel::kSync);
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.AwaitCall();
  EXPECT_EQ(factor->GetProgress(0, 1).next, 1);
  EXPECT_EQ(factor->Describe().version.step, 0);
  EXPECT_EQ(Elements(Read(*factor)), Floats(6, 0));  // reads go on meanwhile
  const auto logged = store_.log();
  ASSERT_EQ(logged.size(), 1);
  EXPECT_EQ(logged[0].run, (StepRun{1, 1, StepOutcome::kWhole, {0}}));
  EXPECT_EQ(logged[0].ended, 1);
  EXPECT_EQ(logged[0].version.step, 1);
  EXPECT_EQ(logged[0].total_weight, 0.5);
  EXPECT_EQ(logged[0].state[0], golden_covariance_[0] / 2);
  store_.Answer();
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  EXPECT_EQ(factor->GetProgress(0, 1).durable, 1);
}

TEST_F(FactorDurabilityTest, AStepThatCannotBeLoggedNeverEnds) {
  const auto factor = CreateAt(DurabilityLevel::kSync);
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.Answer(absl::UnavailableError("the disk has failed"));
  ASSERT_TRUE(SendStep(*factor, 2, *stream).ok());
  EXPECT_EQ(Elements(Read(*factor)), Floats(6, 0));
  EXPECT_EQ(factor->GetProgress(0, 1).next, 1);
  EXPECT_EQ(store_.log().size(), 1);
}

TEST_F(FactorDurabilityTest, UnderSyncBatchesAreRefusedWhileNothingCanBeWritten) {
  const auto factor = CreateAt(DurabilityLevel::kSync);
  const auto stream = OpenTower(*factor, 0);
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, reason::kDiskFull, "");
  store_.SetWritable(full);
  EXPECT_EQ(SendStep(*factor, 1, *stream), full);
  store_.SetWritable(absl::OkStatus());
  EXPECT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.Answer();
}

TEST_F(FactorDurabilityTest, AnOutcomeIsOnDiskBeforeAnyoneIsTold) {
  FactorSpec spec = Golden(2);
  spec.gather_policy = GatherPolicy::kPartial;
  spec.gather_timeout = absl::Milliseconds(1);
  const auto factor = Create("f", spec);
  const auto stream = OpenTower(*factor, 0);
  const auto other = OpenTower(*factor, 1);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.AwaitCall();
  EXPECT_EQ(store_.outcomes()[0], (std::pair{0, StepRun{1, 1, StepOutcome::kPartial, {0}}}));
  EXPECT_EQ(factor->GetProgress(0, 1).next, 1);
  EXPECT_EQ(Elements(Read(*factor)), Floats(6, 0));  // not overwritten yet: it may never be
  store_.Answer();
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  EXPECT_EQ(factor->GetProgress(1, 1).missed.size(), 1);
}

TEST_F(FactorDurabilityTest, AResetWhileAStepWaitsForTheDiskDiscardsIt) {
  const auto factor = CreateAt(DurabilityLevel::kSync);
  auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.AwaitCall();
  ASSERT_TRUE(registry_->Reset("f").ok());
  store_.Answer();
  stream = OpenTower(*factor, 0);
  ASSERT_TRUE(SendStep(*factor, 1, *stream).ok());
  store_.Answer();
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  EXPECT_EQ(factor->Describe().steps_committed, 1);
}

TEST_F(FactorDurabilityTest, ALifeIsRecordedBeforeItIsAnswered) {
  CreateAt(DurabilityLevel::kSnapshot);
  ASSERT_EQ(store_.lives().size(), 1);
  EXPECT_EQ(store_.lives()[0].version.incarnation, 1000);
  ASSERT_TRUE(registry_->SetTowers("f", 3, false).ok());
  EXPECT_EQ(store_.lives().back().plan.At(1), 3);
  ASSERT_TRUE(registry_->SetDamping("d", 0.25).ok());
  ASSERT_TRUE(registry_->Register("f", OperatorSpec{OperatorKind::kCholesky, 0, "d"}, {}).ok());
  EXPECT_EQ(store_.lives().back().results.size(), 1);
  ASSERT_TRUE(registry_->Reset("f").ok());
  EXPECT_EQ(store_.lives().back().version.incarnation, 1001);
  EXPECT_EQ(store_.lives().back().plan.At(1), 1);
  EXPECT_EQ(store_.lives().back().results.size(), 1);
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_EQ(store_.deleted(), std::vector<std::string>{"f"});
  ASSERT_TRUE(registry_->DeleteDamping("d").ok());
  ASSERT_EQ(store_.dampings().size(), 2);
  EXPECT_EQ(store_.dampings()[0].second, 0.25);
  EXPECT_EQ(store_.dampings()[1].second, std::nullopt);
}

TEST_F(FactorDurabilityTest, WhatCannotBeRecordedDoesNotHappen) {
  const auto factor = CreateAt(DurabilityLevel::kSnapshot);
  ASSERT_TRUE(registry_->SetDamping("d", 0.25).ok());
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, reason::kDiskFull, "");
  store_.SetWritable(full);
  EXPECT_EQ(registry_->Create("g", Golden()).status(), full);
  EXPECT_EQ(registry_->Find("g").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry_->Delete("f"), full);
  EXPECT_TRUE(registry_->Find("f").ok());
  EXPECT_EQ(registry_->Reset("f").status(), full);
  EXPECT_EQ(factor->Describe().version.incarnation, 1000);
  EXPECT_EQ(registry_->SetTowers("f", 3, false).status(), full);
  EXPECT_EQ(factor->towers(), 1);
  EXPECT_EQ(registry_->SetDamping("d", 0.5), full);
  EXPECT_EQ(registry_->DeleteDamping("d"), full);
  EXPECT_EQ(*registry_->dampings().Get("d"), 0.25);
  EXPECT_TRUE(registry_->Create("f", Golden()).ok());  // it is there: nothing to write
}

TEST_F(FactorDurabilityTest, ADamagedFactorAnswersWhyUntilItIsDeleted) {
  const absl::Status why = MakeError(absl::StatusCode::kDataLoss, reason::kStateDamaged, "crc");
  registry_->Quarantine("f", why);
  EXPECT_EQ(registry_->Find("f").status(), why);
  EXPECT_EQ(registry_->Create("f", Golden()).status(), why);
  EXPECT_EQ(registry_->Reset("f").status(), why);
  EXPECT_TRUE(registry_->Create("g", Golden()).ok());
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_TRUE(registry_->Create("f", Golden()).ok());
}

TEST_F(FactorDurabilityTest, PutMakesAFactorWhatItWas) {
  const auto factor = CreateAt(DurabilityLevel::kSnapshot);
  auto stream = OpenTower(*factor, 0);
  for (int64_t step = 1; step <= 2; ++step) {
    ASSERT_TRUE(SendStep(*factor, step, *stream).ok());
    store_.AwaitEnds(static_cast<size_t>(step));
  }
  const FactorImage saved = *factor->TryImage();
  const auto put = [&](const std::string& name) {
    return registry_->Put(name, saved.spec, [&](uint64_t incarnation) {
      FactorRegistry::Content content{saved, Matrix::New(saved.state->shape())};
      content.image.version.incarnation = incarnation;
      EXPECT_EQ(content.state->CopyFrom(*saved.state), absl::OkStatus());
      return content;
    });
  };
  ASSERT_TRUE(SendStep(*factor, 3, *stream).ok());
  store_.AwaitEnds(3);
  const Floats at_two = golden_covariance_;  // the same batch every time
  ASSERT_TRUE(put("f").ok());
  EXPECT_EQ(factor->Describe().version.step, 2);
  EXPECT_EQ(factor->Describe().version.incarnation, 1001);
  EXPECT_EQ(factor->Describe().steps_committed, 2);
  EXPECT_EQ(factor->Describe().total_weight, 0.75);
  EXPECT_EQ(Elements(Read(*factor)), at_two);
  EXPECT_EQ(ReasonOf(SendStep(*factor, 3, *stream)), reason::kTowerNotOpen);
  stream = OpenTower(*factor, 0);
  EXPECT_TRUE(SendStep(*factor, 3, *stream).ok());
  // As another factor, also in place of a damaged one.
  registry_->Quarantine("g", absl::DataLossError("crc"));
  ASSERT_TRUE(put("g").ok());
  EXPECT_EQ(Elements(Read(**registry_->Find("g"))), at_two);
  FactorSpec other = saved.spec;
  other.sources = 2;
  EXPECT_EQ(ReasonOf(registry_->Put("f", other, nullptr).status()), reason::kSpecDiffers);
}

TEST(FactorRegistryDurabilityTest, WithoutAStoreALevelAboveMemoryIsRefused) {
  BackendCpu backend(nullptr);
  ComputePool pool(1);
  TimerQueue timers;
  FactorRegistry registry({.backend = &backend,
                           .pool = &pool,
                           .state_budget = 1 << 20,
                           .batch_budget = 1 << 20,
                           .timers = &timers});
  FactorSpec spec;
  spec.kind = FullyConnectedDiagonalSpec{2, 2, true};
  spec.durability = DurabilityLevel::kSync;
  EXPECT_EQ(ReasonOf(registry.Create("f", spec).status()), reason::kNoDataDirectory);
  spec.durability = DurabilityLevel::kMemory;
  EXPECT_TRUE(registry.Create("f", spec).ok());
}

}  // namespace
}  // namespace fisherd::core
