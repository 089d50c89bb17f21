#include "server/stall_timer.h"

#include <atomic>
#include <future>
#include <memory>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace fisherd::server {
namespace {

constexpr absl::Duration kNever = absl::Hours(1);
constexpr absl::Duration kSoon = absl::Milliseconds(1);

TEST(StallTimerTest, AnOperationThatStaysPendingIsStalledOnce) {
  std::promise<void> stalled;
  StallTimer timer(kSoon, [&] { stalled.set_value(); });  // a second call would throw
  bool started = false;
  timer.Run([&] { started = true; });
  EXPECT_TRUE(started);
  stalled.get_future().wait();
  EXPECT_FALSE(timer.Done());
  EXPECT_FALSE(timer.Done());
}

TEST(StallTimerTest, ProgressIsNotStalled) {
  std::atomic<bool> stalled = false;
  StallTimer timer(kNever, [&] { stalled = true; });
  for (int i = 0; i < 3; ++i) {
    timer.Run([] {});
    EXPECT_TRUE(timer.Done());
  }
  EXPECT_FALSE(stalled);
}

// The server is at work itself, as long as nothing is pending; the watch goes on after it.
TEST(StallTimerTest, WorkBetweenOperationsIsNoStall) {
  std::promise<void> stalled;
  std::atomic<bool> may_stall = false;
  StallTimer timer(kSoon, [&] {
    EXPECT_TRUE(may_stall);
    stalled.set_value();
  });
  // The first operation ends within its own start, as gRPC may do.
  timer.Run([&] { EXPECT_TRUE(timer.Done()); });
  for (int i = 0; i < 20; ++i) absl::SleepFor(kSoon);
  may_stall = true;
  timer.Run([] {});
  stalled.get_future().wait();
  EXPECT_FALSE(timer.Done());
}

// No stall may come before the operation has begun.
TEST(StallTimerTest, AStartThatTakesLongIsNoStall) {
  std::promise<void> stalled;
  std::atomic<bool> started = false;
  StallTimer timer(kSoon, [&] {
    EXPECT_TRUE(started);
    stalled.set_value();
  });
  timer.Run([&] {
    for (int i = 0; i < 20; ++i) absl::SleepFor(kSoon);
    started = true;
  });
  stalled.get_future().wait();
}

TEST(StallTimerTest, StopLetsGoOfWhatTheCallbackHolds) {
  auto held = std::make_shared<int>();
  StallTimer timer(kNever, [held] {});
  timer.Run([] {});
  EXPECT_EQ(held.use_count(), 2);
  timer.Stop();
  EXPECT_EQ(held.use_count(), 1);
}

TEST(StallTimerTest, MayBeDestroyedByWhatItStarts) {
  for (int i = 0; i < 100; ++i) {
    auto timer = std::make_unique<StallTimer>(kSoon, [] {});
    StallTimer& used = *timer;
    used.Run([&] { timer.reset(); });
    EXPECT_EQ(timer, nullptr);
  }
}

}  // namespace
}  // namespace fisherd::server
