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
  static void LookAt(FactorHistory& history, int64_t seconds) {
    history.Look(absl::UnixEpoch() + absl::Seconds(seconds));
  }
  static std::vector<double> Rates(FactorHistory& history, const std::string& factor) {
    return RatesOf(history.Of(factor));
  }

  std::shared_ptr<core::CountingListener> stream_;
};

TEST_F(FactorHistoryTest, KeepsRatesOfTheLastLooks) {
  const auto factor = Create("f", Golden());
  stream_ = OpenTower(*factor, 0);
  FactorHistory history(&*registry_, absl::Hours(1));
  EXPECT_THAT(history.Of("f"), IsEmpty());
  LookAt(history, 0);
  EXPECT_THAT(Rates(history, "f"), IsEmpty());
  Step(*factor, 1);
  Step(*factor, 2);
  LookAt(history, 4);
  LookAt(history, 14);
  EXPECT_THAT(Rates(history, "f"), ElementsAre(0.5, 0));
  EXPECT_EQ(history.Of("f").back().steps, 2);
  for (size_t i = 0; i < 2 * FactorHistory::kMaxSamples; ++i) history.Look();
  EXPECT_EQ(Rates(history, "f").size(), FactorHistory::kMaxSamples - 1);
}

TEST_F(FactorHistoryTest, ANewIncarnationBeginsAnew) {
  Create("f", Golden());
  FactorHistory history(&*registry_, absl::Hours(1));
  history.Look();
  history.Look();
  EXPECT_EQ(Rates(history, "f").size(), 1);
  ASSERT_TRUE(registry_->Reset("f").ok());
  history.Look();
  EXPECT_THAT(Rates(history, "f"), IsEmpty());
  ASSERT_TRUE(registry_->Delete("f").ok());
  history.Look();
  EXPECT_THAT(history.Of("f"), IsEmpty());
}

TEST_F(FactorHistoryTest, LooksByItself) {
  Create("f", Golden());
  FactorHistory history(&*registry_, absl::Milliseconds(1));
  while (history.Of("f").size() < 3) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(FactorHistoryTest, IsOfSoManyFactorsAtMost) {
  const auto name = [](size_t i) { return absl::StrFormat("%05d", i); };
  constexpr size_t kMost = FactorHistory::kMaxFactors;
  for (size_t i = 0; i < kMost + 2; ++i) Create(name(i), Spec(1, 1, false));
  FactorHistory history(&*registry_, absl::Hours(1));
  history.Look();
  EXPECT_EQ(history.Of(name(kMost - 1)).size(), 1);
  // Who is asked for takes the place of the last by name for which nobody has asked.
  EXPECT_THAT(history.Of(name(kMost)), IsEmpty());
  EXPECT_THAT(history.Of(name(kMost + 1)), IsEmpty());
  history.Look();
  EXPECT_EQ(history.Of(name(kMost)).size(), 1);
  EXPECT_EQ(history.Of(name(kMost + 1)).size(), 1);
  EXPECT_EQ(history.Of(name(kMost - 1)).size(), 2);
  EXPECT_EQ(history.Of(name(0)).size(), 2);
  EXPECT_THAT(history.Of(name(kMost - 2)), IsEmpty());
}

}  // namespace
}  // namespace fisherd::server
