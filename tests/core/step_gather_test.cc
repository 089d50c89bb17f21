#include "core/step_gather.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>

#include "core/error.h"
#include "tests/long_tests.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr StepParameters kParameters{.decay = 0.5, .weight = 0.5};

Digest DigestOf(int n) {
  Digest digest{};
  digest[0] = static_cast<std::byte>(n);
  return digest;
}

std::string ReasonOf(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  return details.has_value() ? details->reason : "";
}

// Sends a whole batch.
void Deliver(StepGather& gather, int64_t step, int tower) {
  const auto ticket = gather.Begin(step, tower, kParameters, DigestOf(1));
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  ASSERT_NE(*ticket, 0);
  ASSERT_TRUE(gather.Complete(step, tower, *ticket));
}

TEST(StepGatherTest, AStepIsWholeWhenAllTowersAre) {
  StepGather gather(2, 4);
  EXPECT_FALSE(gather.NextIsWhole());
  Deliver(gather, 1, 1);
  EXPECT_FALSE(gather.NextIsWhole());
  const auto ticket = gather.Begin(1, 0, kParameters, DigestOf(7));
  ASSERT_TRUE(ticket.ok());
  EXPECT_FALSE(gather.NextIsWhole()) << "arriving is not whole";
  ASSERT_TRUE(gather.Complete(1, 0, *ticket));
  ASSERT_TRUE(gather.NextIsWhole());
  EXPECT_EQ(gather.BeginCommit(), kParameters);
  gather.EndStep();
  EXPECT_EQ(gather.next(), 2);
  EXPECT_FALSE(gather.NextIsWhole());
}

TEST(StepGatherTest, TheWindowBoundsHowFarATowerRunsAhead) {
  StepGather gather(2, 3);
  for (const int64_t step : {1, 2, 3}) Deliver(gather, step, 0);
  EXPECT_EQ(gather.ReceivedThrough(0), 3);
  EXPECT_EQ(gather.ReceivedThrough(1), 0);
  const auto beyond = gather.Begin(4, 0, kParameters, DigestOf(1));
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReasonOf(beyond.status()), reason::kBeyondWindow);
  EXPECT_THAT(std::string(beyond.status().message()), HasSubstr("steps 1 to 3"));
  EXPECT_EQ(gather.Begin(INT64_MAX, 0, kParameters, DigestOf(1)).status().code(),
            absl::StatusCode::kOutOfRange);
  Deliver(gather, 1, 1);
  gather.BeginCommit();
  gather.EndStep();
  Deliver(gather, 4, 0);
}

TEST(StepGatherTest, RefusesATowerThatIsNot) {
  StepGather gather(2, 3);
  for (const int tower : {-1, 2}) {
    const auto ticket = gather.Begin(1, tower, kParameters, DigestOf(1));
    EXPECT_EQ(ticket.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(std::string(ticket.status().message()), HasSubstr("towers 0 to 1"));
  }
  EXPECT_FALSE(gather.IsOpen(1));
}

TEST(StepGatherTest, TheSameBatchAgainIsToBeDiscarded) {
  StepGather gather(2, 3);
  Deliver(gather, 1, 0);
  const auto again = gather.Begin(1, 0, kParameters, DigestOf(1));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, 0);
  const auto other = gather.Begin(1, 0, kParameters, DigestOf(2));
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(other.status()), reason::kIdentityReused);
  Deliver(gather, 1, 1);
  EXPECT_TRUE(gather.NextIsWhole()) << "neither has counted";
}

TEST(StepGatherTest, AnArrivingBatchIsNotBegunTwice) {
  StepGather gather(1, 3);
  ASSERT_TRUE(gather.Begin(1, 0, kParameters, DigestOf(1)).ok());
  EXPECT_EQ(gather.Begin(1, 0, kParameters, DigestOf(1)).status().code(),
            absl::StatusCode::kAborted);
}

TEST(StepGatherTest, AllTowersSendTheSameParameters) {
  StepGather gather(2, 3);
  Deliver(gather, 1, 0);
  const auto decay = gather.Begin(1, 1, {.decay = 0.25, .weight = 0.5}, DigestOf(1));
  EXPECT_EQ(decay.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(decay.status()), reason::kStepParametersDiffer);
  EXPECT_THAT(std::string(decay.status().message()), HasSubstr("decay is 0.25"));
  const auto weight = gather.Begin(1, 1, {.decay = 0.5, .weight = 2}, DigestOf(1));
  EXPECT_THAT(std::string(weight.status().message()), HasSubstr("weight is 2"));
  Deliver(gather, 1, 1);
  EXPECT_TRUE(gather.NextIsWhole());
}

TEST(StepGatherTest, AnAbandonedBatchLeavesNothing) {
  StepGather gather(2, 3);
  const auto ticket = gather.Begin(1, 0, {.decay = 0.9, .weight = 0.1}, DigestOf(1));
  ASSERT_TRUE(ticket.ok());
  EXPECT_TRUE(gather.IsOpen(1));
  EXPECT_TRUE(gather.Abandon(1, 0, *ticket));
  EXPECT_FALSE(gather.IsOpen(1));
  EXPECT_FALSE(gather.Complete(1, 0, *ticket)) << "its ticket is stale";
  EXPECT_FALSE(gather.Abandon(1, 0, *ticket));
  // Parameters and digest of the abandoned batch bind nobody.
  Deliver(gather, 1, 1);
  Deliver(gather, 1, 0);
  EXPECT_EQ(gather.BeginCommit(), kParameters);
}

TEST(StepGatherTest, ClearingATowerSparesOthersAndACommit) {
  StepGather gather(2, 4);
  for (const int64_t step : {1, 2, 3}) Deliver(gather, step, 0);
  const auto arriving = gather.Begin(4, 0, kParameters, DigestOf(1));
  ASSERT_TRUE(arriving.ok());
  Deliver(gather, 1, 1);
  Deliver(gather, 2, 1);
  gather.BeginCommit();
  EXPECT_THAT(gather.ClearTower(0), ElementsAre(2, 3));
  EXPECT_FALSE(gather.Complete(4, 0, *arriving));
  EXPECT_TRUE(gather.IsOpen(2)) << "tower 1 is there";
  EXPECT_FALSE(gather.IsOpen(3));
  gather.EndStep();
  EXPECT_FALSE(gather.NextIsWhole());
  EXPECT_THAT(gather.ClearTower(0), IsEmpty());
  Deliver(gather, 2, 0);
  EXPECT_TRUE(gather.NextIsWhole());
}

// Random events against a plain model: a set of what is whole and what is on its way.
TEST(StepGatherTest, AgreesWithAPlainModel) {
  constexpr int kTowers = 3, kWindow = 3;
  int64_t ended = 0;
  for (int seed = 0; seed < Repetitions(200, 100000); ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int n) { return static_cast<int>(random() % n); };
    StepGather gather(kTowers, kWindow);
    std::map<std::pair<int64_t, int>, StepGather::Ticket> arriving;
    std::set<std::pair<int64_t, int>> whole;
    int64_t next = 1;
    for (int event = 0; event < 600; ++event) {
      const int64_t step = next + std::min(draw(kWindow + 1), draw(kWindow + 1));
      const int tower = draw(kTowers);
      const std::pair key(step, tower);
      switch (draw(7)) {
        default: {
          const auto ticket = gather.Begin(step, tower, kParameters, DigestOf(1));
          if (step >= next + kWindow) {
            ASSERT_EQ(ticket.status().code(), absl::StatusCode::kOutOfRange);
          } else if (whole.count(key)) {
            ASSERT_EQ(ticket.value(), 0);
          } else if (arriving.count(key)) {
            ASSERT_EQ(ticket.status().code(), absl::StatusCode::kAborted);
          } else {
            ASSERT_NE(ticket.value(), 0);
            arriving[key] = *ticket;
          }
          break;
        }
        case 0:
        case 1:
          if (const auto it = arriving.find(key); it != arriving.end()) {
            ASSERT_TRUE(gather.Complete(step, tower, it->second));
            whole.insert(key);
            arriving.erase(it);
          }
          break;
        case 2:
          if (const auto it = arriving.find(key); it != arriving.end()) {
            ASSERT_TRUE(gather.Abandon(step, tower, it->second));
            arriving.erase(it);
          }
          break;
        case 3:
          if (draw(8) == 0) {
            gather.ClearTower(tower);
            std::erase_if(whole, [&](const auto& k) { return k.second == tower; });
            std::erase_if(arriving, [&](const auto& k) { return k.first.second == tower; });
          }
          break;
      }
      const auto of_next =
          std::count_if(whole.begin(), whole.end(), [&](const auto& k) { return k.first == next; });
      ASSERT_EQ(gather.NextIsWhole(), of_next == kTowers);
      if (gather.NextIsWhole()) {
        gather.BeginCommit();
        gather.EndStep();
        std::erase_if(whole, [&](const auto& k) { return k.first == next; });
        ++next;
      }
      ASSERT_EQ(gather.next(), next);
      ASSERT_EQ(gather.BatchesHeld(), whole.size() + arriving.size());
      for (int64_t s = next; s < next + kWindow; ++s) {
        const bool open =
            std::any_of(whole.begin(), whole.end(), [&](const auto& k) { return k.first == s; }) ||
            std::any_of(arriving.begin(), arriving.end(),
                        [&](const auto& k) { return k.first.first == s; });
        ASSERT_EQ(gather.IsOpen(s), open);
      }
    }
    ended += next - 1;
  }
  EXPECT_GT(ended, 200) << "too few steps ended to prove anything";
}

}  // namespace
}  // namespace fisherd::core
