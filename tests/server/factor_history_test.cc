#include "server/factor_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/core/factor_harness.h"

namespace fisherd::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FactorHistoryTest : public core::FactorTest {
 protected:
  void Step(core::Factor& factor, int64_t step) {
    ASSERT_TRUE(Send(factor, Header(factor, step, 2), golden_batch_, stream_.get()).ok());
    ASSERT_TRUE(ReadAfter(factor, step).ok());
  }
  std::shared_ptr<core::CountingListener> stream_;
};

TEST_F(FactorHistoryTest, KeepsRatesOfTheLastLooks) {
  const auto factor = Create("f", Golden());
  stream_ = OpenTower(*factor, 0);
  FactorHistory history(&*registry_, absl::Hours(1));
  EXPECT_THAT(history.RatesOf("f"), IsEmpty());
  history.Look();
  EXPECT_THAT(history.RatesOf("f"), IsEmpty());
  Step(*factor, 1);
  Step(*factor, 2);
  history.Look();
  history.Look();
  EXPECT_THAT(history.RatesOf("f"), ElementsAre(2 / 3600.0, 0));
  EXPECT_THAT(history.RatesOf("none"), IsEmpty());
  for (size_t i = 0; i < 2 * FactorHistory::kMaxSamples; ++i) history.Look();
  EXPECT_EQ(history.RatesOf("f").size(), FactorHistory::kMaxSamples - 1);
}

TEST_F(FactorHistoryTest, ANewIncarnationBeginsAnew) {
  const auto factor = Create("f", Golden());
  FactorHistory history(&*registry_, absl::Hours(1));
  history.Look();
  history.Look();
  EXPECT_EQ(history.RatesOf("f").size(), 1);
  ASSERT_TRUE(registry_->Reset("f").ok());
  history.Look();
  EXPECT_THAT(history.RatesOf("f"), IsEmpty());
  ASSERT_TRUE(registry_->Delete("f").ok());
  history.Look();
  EXPECT_THAT(history.RatesOf("f"), IsEmpty());
}

TEST_F(FactorHistoryTest, LooksByItself) {
  Create("f", Golden());
  FactorHistory history(&*registry_, absl::Milliseconds(1));
  while (history.RatesOf("f").size() < 3) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(FactorHistoryTest, IsOfSoManyFactorsAtMost) {
  for (size_t i = 0; i < FactorHistory::kMaxFactors + 1; ++i) {
    Create(absl::StrFormat("%05d", i), Spec(1, 1, false));
  }
  FactorHistory history(&*registry_, absl::Hours(1));
  history.Look();
  history.Look();
  EXPECT_EQ(history.RatesOf(absl::StrFormat("%05d", FactorHistory::kMaxFactors - 1)).size(), 1);
  EXPECT_THAT(history.RatesOf(absl::StrFormat("%05d", FactorHistory::kMaxFactors)), IsEmpty());
}

}  // namespace
}  // namespace fisherd::server
