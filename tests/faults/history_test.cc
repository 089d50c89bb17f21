#include "tests/faults/history.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "tests/faults/exact_batches.h"

namespace fisherd::faults {
namespace {

v1::Version At(int64_t step, uint64_t epoch = 1, uint64_t incarnation = 1) {
  v1::Version version;
  version.set_incarnation(incarnation);
  version.set_epoch(epoch);
  version.set_step(step);
  return version;
}

class HistoryTest : public testing::Test {
 protected:
  // A read of what is right for `step`.
  static History::Read ReadOf(int64_t step, int64_t floor = 0) {
    return {.floor = floor, .version = At(step), .value = sums()[step].cast<float>()};
  }
  static const std::vector<Matrix<double>>& sums() {
    static const auto* sums = new std::vector<Matrix<double>>(WholeSums({}, "f", 4, 2));
    return *sums;
  }

  static inline History history_;
  void SetUp() override { history_.~History(), new (&history_) History(); }
};

TEST_F(HistoryTest, TakesReadsInOrder) {
  for (const int64_t step : {0, 0, 1, 3, 3, 4}) history_.Add("f", ReadOf(step));
  history_.Check("f", sums());
  history_.Check("g", sums());
  EXPECT_EQ(history_.reads("f"), 6);
}

TEST_F(HistoryTest, RemembersTheHighestAcknowledgement) {
  EXPECT_EQ(history_.acknowledged("f"), 0);
  history_.Acknowledge("f", 3);
  history_.Acknowledge("f", 2);
  EXPECT_EQ(history_.acknowledged("f"), 3);
}

TEST_F(HistoryTest, FindsAReadThatIsTooOld) {
  history_.Add("f", ReadOf(2, /*floor=*/3));
  EXPECT_NONFATAL_FAILURE(history_.Check("f", sums(), true), "read.floor");
}

TEST_F(HistoryTest, FindsAReadThatWentBack) {
  history_.Add("f", ReadOf(2));
  history_.Add("f", ReadOf(1));
  history_.Check("f", sums(), /*went_back=*/true);
  EXPECT_NONFATAL_FAILURE(history_.Check("f", sums()), "before.step");
}

TEST_F(HistoryTest, FindsAWrongElement) {
  History::Read read = ReadOf(2);
  read.value(0, 0) += 1.0f / 16;
  history_.Add("f", read);
  EXPECT_FATAL_FAILURE(history_.Check("f", sums()), "at step 2");
}

}  // namespace
}  // namespace fisherd::faults
