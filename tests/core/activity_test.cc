#include "core/activity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "core/error.h"

namespace fisherd::core {
namespace {

TEST(HistogramTest, EveryTimeIsInTheFirstBucketThatHasRoomForIt) {
  Histogram histogram;
  histogram.Observe(absl::ZeroDuration());
  histogram.Observe(absl::Microseconds(100));  // just the first bound
  histogram.Observe(absl::Microseconds(101));
  histogram.Observe(absl::Seconds(100));
  histogram.Observe(absl::Seconds(101));
  const Histogram::Counts counts = histogram.Get();
  EXPECT_EQ(counts.buckets[0], 2);
  EXPECT_EQ(counts.buckets[1], 1);
  EXPECT_EQ(counts.buckets[Histogram::kBounds.size() - 1], 1);
  EXPECT_EQ(counts.buckets[Histogram::kBounds.size()], 1);
  EXPECT_NEAR(counts.seconds, 201.000201, 1e-9);
}

TEST(HistogramTest, LosesNothingUnderThreads) {
  Histogram histogram;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 1000; ++k) histogram.Observe(absl::Milliseconds(k));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto buckets = histogram.Get().buckets;
  EXPECT_EQ(std::accumulate(buckets.begin(), buckets.end(), int64_t{0}), 4000);
}

TEST(ReasonCountsTest, CountsByReasonAndElseByCode) {
  ReasonCounts counts;
  counts.Add(BadArgument("decay", "no"));
  counts.Add(BadArgument("weight", "no"));
  counts.Add(absl::InternalError("no"));
  EXPECT_THAT(counts.Get(),
              testing::ElementsAre(testing::Pair("BAD_ARGUMENT", 2), testing::Pair("INTERNAL", 1)));
}

}  // namespace
}  // namespace fisherd::core
