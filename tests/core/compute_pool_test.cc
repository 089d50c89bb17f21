#include "core/compute_pool.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <barrier>
#include <future>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace fisherd::core {
namespace {

TEST(ComputePoolTest, RunsTasksInOrder) {
  std::vector<int> order;
  {
    ComputePool pool(1);
    for (int i = 0; i < 100; ++i) pool.Schedule([&order, i] { order.push_back(i); });
  }  // waits for them
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(ComputePoolTest, RunsWhatTasksSchedule) {
  std::atomic<int> ran = 0;
  {
    ComputePool pool(2);
    pool.Schedule([&] {
      pool.Schedule([&] { ++ran; });
      ++ran;
    });
  }
  EXPECT_EQ(ran, 2);
}

TEST(ComputePoolTest, TasksRunBesideEachOther) {
  std::promise<void> first;
  std::promise<void> second;
  ComputePool pool(2);  // ends before what its tasks use
  pool.Schedule([&] {
    first.set_value();
    second.get_future().wait();
  });
  pool.Schedule([&] {
    first.get_future().wait();
    second.set_value();
  });
}

#ifdef __linux__
cpu_set_t OwnCores() {
  cpu_set_t cores;
  EXPECT_EQ(sched_getaffinity(0, sizeof(cores), &cores), 0);
  return cores;
}

// The cores that each worker may run on, the pool being whole.
std::vector<cpu_set_t> CoresOf(int threads) {
  std::vector<cpu_set_t> cores(threads);
  std::barrier all(threads);
  ComputePool pool(threads);
  for (cpu_set_t& own : cores) {
    pool.Schedule([&] {
      all.arrive_and_wait();  // so that each worker takes one
      own = OwnCores();
    });
  }
  return cores;
}

TEST(ComputePoolTest, AsManyAsTheCoresEachHaveTheirOwn) {
  const cpu_set_t allowed = OwnCores();
  const int count = CPU_COUNT(&allowed);
  if (count < 2) GTEST_SKIP() << "one core only";
  cpu_set_t all;
  CPU_ZERO(&all);
  for (const cpu_set_t& own : CoresOf(count)) {
    EXPECT_EQ(CPU_COUNT(&own), 1);
    CPU_OR(&all, &all, &own);
  }
  EXPECT_TRUE(CPU_EQUAL(&all, &allowed));
  for (const cpu_set_t& own : CoresOf(count + 1)) EXPECT_TRUE(CPU_EQUAL(&own, &allowed));
}
#endif

TEST(ComputePoolTest, HasAtLeastOneThread) {
  EXPECT_EQ(ComputePool(0).threads(), 1);
  EXPECT_EQ(ComputePool(3).threads(), 3);
}

TEST(ComputePoolTest, ParallelForCallsEveryIndexOnce) {
  for (const int threads : {1, 2, 8}) {
    ComputePool pool(threads);
    for (const int count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(count);
      pool.ParallelFor(count, [&](int64_t i) { ++calls[i]; });
      for (int i = 0; i < count; ++i) EXPECT_EQ(calls[i], 1) << i;
    }
  }
}

TEST(ComputePoolTest, ParallelForUsesIdleWorkers) {
  std::promise<void> started;
  ComputePool pool(1);
  pool.Schedule([&] { started.set_value(); });
  started.get_future().wait();
  // Two indices that wait for each other end only if two threads take one each. The worker may not
  // have become idle again yet, so this is tried until it has.
  for (bool together = false; !together;) {
    std::atomic<int> inside = 0;
    std::atomic<int> most = 0;
    pool.ParallelFor(2, [&](int64_t) {
      ++inside;
      for (int spin = 0; spin < 100000 && inside < 2; ++spin) std::this_thread::yield();
      most = std::max<int>(most, inside);
    });
    together = most == 2;
  }
}

TEST(ComputePoolTest, ParallelForFromEveryTaskAtOnceEnds) {
  std::atomic<int> calls = 0;
  {
    ComputePool pool(3);
    for (int i = 0; i < 50; ++i) {
      pool.Schedule([&] {
        pool.ParallelFor(10, [&](int64_t) { pool.ParallelFor(3, [&](int64_t) { ++calls; }); });
      });
    }
  }
  EXPECT_EQ(calls, 50 * 10 * 3);
}

TEST(ComputePoolTest, ParallelForEndsWhileWorkersAreBusy) {
  std::promise<void> release;  // outlives the pool's task
  ComputePool pool(1);
  pool.Schedule([released = release.get_future().share()] { released.wait(); });
  std::atomic<int> calls = 0;
  pool.ParallelFor(5, [&](int64_t) { ++calls; });
  EXPECT_EQ(calls, 5);
  release.set_value();
}

}  // namespace
}  // namespace fisherd::core
