#include "core/byte_budget.h"

#include <limits>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace fisherd::core {
namespace {

TEST(ByteBudgetTest, GrantsUpToItsLimitAndTakesBack) {
  ByteBudget budget(100);
  {
    std::optional<ByteGrant> grant = budget.TryTake(60);
    ASSERT_TRUE(grant.has_value());
    EXPECT_EQ(grant->bytes(), 60);
    EXPECT_EQ(budget.used(), 60);
    EXPECT_FALSE(budget.TryTake(41).has_value());
    EXPECT_EQ(budget.used(), 60);
    EXPECT_TRUE(budget.TryTake(40).has_value());
    EXPECT_EQ(budget.used(), 60);
  }
  EXPECT_EQ(budget.used(), 0);
  EXPECT_EQ(budget.limit(), 100);
}

TEST(ByteBudgetTest, HugeRequestsDoNotOverflow) {
  ByteBudget budget(std::numeric_limits<int64_t>::max());
  std::optional<ByteGrant> all = budget.TryTake(std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(all.has_value());
  EXPECT_FALSE(budget.TryTake(std::numeric_limits<int64_t>::max()).has_value());
  EXPECT_TRUE(budget.TryTake(0).has_value());
}

TEST(ByteBudgetTest, GrantsMove) {
  ByteBudget budget(100);
  ByteGrant a = *budget.TryTake(30);
  ByteGrant b = std::move(a);
  EXPECT_EQ(a.bytes(), 0);
  EXPECT_EQ(b.bytes(), 30);
  EXPECT_EQ(budget.used(), 30);
  ByteGrant c = *budget.TryTake(50);
  c = std::move(b);
  EXPECT_EQ(budget.used(), 30);
  c = ByteGrant();
  EXPECT_EQ(budget.used(), 0);
  ByteGrant d = *budget.TryTake(10);
  ByteGrant& same = d;
  d = std::move(same);
  EXPECT_EQ(d.bytes(), 10);
  EXPECT_EQ(budget.used(), 10);
}

TEST(ByteBudgetTest, ThreadsNeverExceedIt) {
  ByteBudget budget(10);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const std::optional<ByteGrant> grant = budget.TryTake(4);
        EXPECT_LE(budget.used(), 10);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used(), 0);
}

class Waiter : public RoomWaiter {
 public:
  void OnRoom() override { ++calls; }
  int calls = 0;
};

TEST(ByteBudgetTest, TellsTheFirstWhoWaitsWhenThereIsRoom) {
  ByteBudget budget(10);
  const auto a = std::make_shared<Waiter>(), b = std::make_shared<Waiter>();
  ASSERT_TRUE(budget.Take(8));
  EXPECT_FALSE(budget.TakeInTurn(a, 6));
  EXPECT_FALSE(budget.TakeInTurn(b, 2));
  budget.GiveBack(3);
  EXPECT_EQ(a->calls, 0) << "5 are not 6";
  budget.GiveBack(1);
  EXPECT_EQ(a->calls, 1);
  EXPECT_EQ(b->calls, 0);
  budget.Leave(a);
  EXPECT_EQ(b->calls, 1) << "its turn now";
  EXPECT_TRUE(budget.TakeInTurn(b, 2));
  EXPECT_EQ(b.use_count(), 1) << "waits no more";
}

TEST(ByteBudgetTest, AGrantThatGoesTellsThemToo) {
  ByteBudget budget(10);
  const auto a = std::make_shared<Waiter>();
  std::optional<ByteGrant> grant = budget.TryTake(10);
  EXPECT_FALSE(budget.TakeInTurn(a, 1));
  grant.reset();
  EXPECT_EQ(a->calls, 1);
  budget.Leave(a);
}

}  // namespace
}  // namespace fisherd::core
