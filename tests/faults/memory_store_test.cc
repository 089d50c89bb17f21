#include "tests/faults/memory_store.h"

#include "tests/core/factor_harness.h"

namespace fisherd::faults {
namespace {

using core::FactorTest;
using core::Floats;

class StoreHolder {
 protected:
  MemoryStore store_{[](const std::string&, int64_t step) { return step % 2 == 0; }};
};

// A factor of one element, which plainly adds up what one tower sends.
class MemoryStoreTest : private StoreHolder, public FactorTest {
 protected:
  MemoryStoreTest()
      : FactorTest({.state_budget = 1 << 20, .batch_budget = 1 << 20, .store = &store_}) {
    core::FactorSpec spec = Spec(1, 1, false);
    spec.zero_debias = false;
    factor_ = Create("f", spec);
    stream_ = OpenTower(*factor_, 0);
  }
  // What runs on them uses the registries.
  ~MemoryStoreTest() override {
    timers_.reset();
    pool_.reset();
  }

  // A step of input 1 and gradient `gradient`, which ends; FAILED if that overflows.
  void Step(float gradient) {
    core::BatchHeader header = Header(*factor_, next_, 1);
    header.decay = 1;
    header.weight = 1;
    const int64_t before = store().ended();
    ASSERT_TRUE(Send(*factor_, header, {1, gradient}, stream_.get()).ok());
    if (!frozen_) store().AwaitEnded(before + 1);
    ReadAfter(*factor_, next_++).IgnoreError();
  }

  // What the next process has.
  std::shared_ptr<core::Factor> Thaw() {
    next_registry_ =
        std::make_unique<core::FactorRegistry>(core::RegistryOptions{.backend = &backend_,
                                                                     .pool = &*pool_,
                                                                     .state_budget = 1 << 20,
                                                                     .batch_budget = 1 << 20,
                                                                     .timers = &*timers_,
                                                                     .epoch = 78,
                                                                     .first_incarnation = 2000});
    EXPECT_TRUE(store().Thaw(*next_registry_).ok());
    return *next_registry_->Find("f");
  }
  MemoryStore& store() { return store_; }

  std::shared_ptr<core::Factor> factor_;
  std::shared_ptr<core::CountingListener> stream_;
  std::unique_ptr<core::FactorRegistry> next_registry_;
  int64_t next_ = 1;
  bool frozen_ = false;
};

TEST_F(MemoryStoreTest, AFactorThatHasNoStepIsAsItWasCreated) {
  const auto factor = Thaw();
  EXPECT_EQ(factor->Describe().version.incarnation, 1000);
  EXPECT_EQ(factor->Describe().next, 1);
  EXPECT_EQ(Elements(Read(*factor)), Floats{0});
}

TEST_F(MemoryStoreTest, FindsTheLastStepThatWasSaved) {
  Step(1);
  EXPECT_EQ(factor_->Describe().durable, 0);
  Step(1);
  EXPECT_EQ(factor_->Describe().durable, 2);
  Step(1);
  EXPECT_EQ(store().saved_step("f"), 2);
  EXPECT_EQ(store().ended(), 3);
  const auto factor = Thaw();
  EXPECT_EQ(factor->Describe().next, 3);
  EXPECT_EQ(factor->Describe().version.step, 2);
  EXPECT_EQ(Elements(Read(*factor)), Floats{2});
}

TEST_F(MemoryStoreTest, OutcomesAreKeptThatTheStateHasLost) {
  Step(1);
  Step(1);
  Step(1e19f);  // the square is finite, and three of them are not
  Step(1.6e19f);
  Step(1.6e19f);
  ASSERT_GT(factor_->Describe().steps_failed, 0);
  const auto factor = Thaw();
  EXPECT_EQ(factor->Describe().next, 5);
  EXPECT_EQ(factor->OutcomeOf(0, 5), core::StepOutcome::kFailed);
}

TEST_F(MemoryStoreTest, NothingIsKeptOnceItIsFrozen) {
  Step(1);
  store().Freeze();
  frozen_ = true;
  Step(1);
  EXPECT_EQ(store().ended(), 1);
  EXPECT_EQ(Thaw()->Describe().next, 1);
}

}  // namespace
}  // namespace fisherd::faults
