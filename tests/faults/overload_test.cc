// Many trainers push more than the server has room for: memory stays within the budget, everyone
// ends, and every batch counts once.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"

namespace fisherd::faults {
namespace {

class OverloadTest : public FaultTest {
 protected:
  static constexpr int64_t kBudget = 64 << 10;

  OverloadTest() { options_.batch_budget = kBudget; }

  // The bytes that open steps have reserved, of all factors, are looked at all the time.
  void WatchMemory(const std::atomic<bool>& done) {
    while (!done) {
      const auto factors = client().List();
      ASSERT_TRUE(factors.ok()) << factors.status();
      // Not of one moment; so each by itself, and the server's own sum below.
      for (const v1::FactorInfo& factor : *factors) EXPECT_LE(factor.held_bytes(), kBudget);
    }
  }
};

// Each trainer feeds all factors, windows full: 4 × the budget and more is ready to be sent.
TEST_F(OverloadTest, EveryTrainerEndsWithinTheBudget) {
  const int trainers = Repetitions(12, 48);
  Training training = {.layer = {.inputs = 100, .outputs = 4, .rows = {4, 8, 2, 4}},
                       .factors = {},
                       .towers = 4,
                       .steps = Repetitions(25, 250)};
  StartServer();
  std::vector<Training> trainings;
  for (int group = 0; group < trainers / training.towers; ++group) {
    trainings.push_back(training);
    for (int f = 0; f < 6; ++f)
      trainings.back().factors.push_back(absl::StrCat("g", group, "/", f));
    Create(trainings.back(), Accumulating(training.towers));
  }
  std::atomic<bool> done = false;
  std::thread watcher([&] { WatchMemory(done); });
  std::vector<std::thread> threads;
  for (const Training& group : trainings) {
    for (int tower = 0; tower < training.towers; ++tower) {
      threads.emplace_back([&, tower] { Train(group, {.tower = tower, .port = port()}); });
    }
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  watcher.join();
  for (const Training& group : trainings) ExpectWhole(group);
}

// Batches that grow, so that open steps have to make room for larger ones, and cuts meanwhile.
TEST_F(OverloadTest, LargerBatchesMakeRoomForThemselves) {
  Training training = {.layer = {.inputs = 60, .outputs = 4, .rows = {1, 64, 16, 4}},
                       .factors = {"a", "b", "c", "d"},
                       .towers = 2,
                       .steps = Repetitions(60, 600)};
  StartServer();
  Create(training, Accumulating(training.towers));
  std::vector<std::unique_ptr<Proxy>> proxies;
  for (int tower = 0; tower < training.towers; ++tower) {
    proxies.push_back(std::make_unique<Proxy>(port(), [](int connection, int) {
      Proxy::Fate fate;
      if (connection < 8) fate.cut_after[kUp] = 40'000 + 7'001 * connection;
      return fate;
    }));
  }
  std::vector<std::thread> threads;
  for (int tower = 0; tower < training.towers; ++tower) {
    threads.emplace_back([&, tower] {
      Train(training, {.tower = tower, .port = proxies[static_cast<size_t>(tower)]->port()});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(proxies[1]->cuts(), 8);
  ExpectWhole(training);
}

}  // namespace
}  // namespace fisherd::faults
