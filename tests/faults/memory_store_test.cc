#include "tests/faults/memory_store.h"

#include <gtest/gtest.h>

namespace fisherd::faults {
namespace {

constexpr core::MatrixShape kShape = {.rows = 1, .cols = 1, .dtype = core::DataType::kFloat32};

// A factor of one element whose steps are told to a store as a server would.
class MemoryStoreTest : public testing::Test {
 protected:
  MemoryStoreTest() : state_(core::Matrix::New(kShape)) {
    store_.SaveNew("f", {}, /*incarnation=*/7, kShape);
  }

  bool End(core::StepOutcome outcome, std::vector<int> counted = {}) {
    if (outcome != core::StepOutcome::kWhole) {
      store_.RecordOutcome("f", 7, 0, {ledger_.next(), ledger_.next(), outcome, counted});
    }
    ledger_.Record(outcome, counted);
    state_->Fill(static_cast<double>(ledger_.next() - 1));
    return store_.StepEnded({.name = "f",
                             .version = {.incarnation = 7, .epoch = 1, .step = ledger_.next() - 1},
                             .ledgers = {ledger_},
                             .state = state_.get()});
  }

  MemoryStore store_{[](const std::string&, int64_t step) { return step % 2 == 0; }};
  core::Ledger ledger_;
  std::unique_ptr<core::Matrix> state_;
};

TEST_F(MemoryStoreTest, AFactorThatHasNoStepIsAsItWasCreated) {
  const auto images = store_.Thaw();
  ASSERT_EQ(images.size(), 1);
  EXPECT_EQ(images[0].version.incarnation, 7);
  EXPECT_EQ(images[0].ledgers[0].next(), 1);
  EXPECT_EQ(images[0].state->elements<float>()[0], 0);
}

TEST_F(MemoryStoreTest, FindsTheLastStepThatWasSaved) {
  EXPECT_FALSE(End(core::StepOutcome::kWhole));
  EXPECT_TRUE(End(core::StepOutcome::kWhole));
  EXPECT_FALSE(End(core::StepOutcome::kWhole));
  EXPECT_EQ(store_.saved_step("f"), 2);
  EXPECT_EQ(store_.ended(), 3);
  const auto images = store_.Thaw();
  EXPECT_EQ(images[0].ledgers[0].next(), 3);
  EXPECT_EQ(images[0].version.step, 2);
  EXPECT_EQ(images[0].state->elements<float>()[0], 2);
}

TEST_F(MemoryStoreTest, OutcomesAreKeptThatTheStateHasLost) {
  End(core::StepOutcome::kFailed);
  End(core::StepOutcome::kWhole);
  End(core::StepOutcome::kPartial, {1});
  const auto images = store_.Thaw();
  const core::Ledger& ledger = images[0].ledgers[0];
  EXPECT_EQ(ledger.next(), 3);
  EXPECT_EQ(ledger.Find(1)->outcome, core::StepOutcome::kFailed);
  ASSERT_NE(ledger.Find(3), nullptr);
  EXPECT_EQ(ledger.Find(3)->counted, std::vector<int>{1});
  EXPECT_EQ(ledger.steps_partial(), 0);
}

TEST_F(MemoryStoreTest, NothingIsKeptOnceItIsFrozen) {
  End(core::StepOutcome::kWhole);
  store_.Freeze();
  EXPECT_FALSE(End(core::StepOutcome::kPartial, {0}));
  EXPECT_EQ(store_.ended(), 1);
  const auto images = store_.Thaw();
  EXPECT_EQ(images[0].ledgers[0].next(), 1);
  EXPECT_EQ(images[0].ledgers[0].Find(2), nullptr);
}

}  // namespace
}  // namespace fisherd::faults
