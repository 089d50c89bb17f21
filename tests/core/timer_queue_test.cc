#include "core/timer_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <vector>

#include "core/clock.h"

namespace fisherd::core {
namespace {

TEST(TimerQueueTest, CallsInTheOrderOfDeadlines) {
  std::vector<int> order;
  std::promise<void> last;
  TimerQueue timers;
  const absl::Time now = SteadyNow();
  timers.CallAt(now + absl::Milliseconds(30), [&] {
    order.push_back(3);
    last.set_value();
  });
  timers.CallAt(now + absl::Milliseconds(20), [&] { order.push_back(2); });
  timers.CallAt(now - absl::Hours(1), [&] { order.push_back(1); });
  last.get_future().wait();
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3));
}

TEST(TimerQueueTest, NeverCallsBeforeTheDeadline) {
  TimerQueue timers;
  std::promise<absl::Time> called;
  const absl::Time deadline = SteadyNow() + absl::Milliseconds(20);
  timers.CallAt(absl::InfiniteFuture(), [] { ADD_FAILURE(); });
  timers.CallAt(deadline, [&] { called.set_value(SteadyNow()); });
  EXPECT_GE(called.get_future().get(), deadline);
}

TEST(TimerQueueTest, ACallMayAskForAnother) {
  TimerQueue timers;
  std::promise<void> second;
  timers.CallAt(SteadyNow(), [&] { timers.CallAt(SteadyNow(), [&] { second.set_value(); }); });
  second.get_future().wait();
}

TEST(TimerQueueTest, WhatIsLeftIsNotCalledButFreed) {
  const auto alive = std::make_shared<int>();
  {
    TimerQueue timers;
    timers.CallAt(SteadyNow() + absl::Hours(1), [alive] { ADD_FAILURE(); });
    EXPECT_EQ(alive.use_count(), 2);
  }
  EXPECT_EQ(alive.use_count(), 1);
}

}  // namespace
}  // namespace fisherd::core
