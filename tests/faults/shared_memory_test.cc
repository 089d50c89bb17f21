// Batches in shared memory, while connections are cut and the server dies: every one counts once,
// with its own bytes.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <thread>

#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"
#include "tests/test_path.h"

namespace fisherd::faults {
namespace {

class SharedMemoryTest : public FaultTest {
 protected:
  SharedMemoryTest() {
    options_.shared_memory = TestPath();
    options_.shared_memory_limit = int64_t{1} << 30;
  }

  static Training TrainingOf(int64_t steps) {  // 40 and 80 KiB a batch
    return {.layer = {.inputs = 30, .outputs = 10, .rows = {256, 512, 256, 512}},
            .factors = {"a", "b"},
            .towers = 2,
            .steps = steps};
  }
  static UpdateStreamOptions Sharing(int64_t bytes) {
    UpdateStreamOptions options = Impatient();
    options.max_frame = 16 << 10;  // several messages a batch
    options.shared_memory = bytes;
    return options;
  }
  static Proxy::Plan Cut(int cuts, unsigned seed) {
    return CutAtRandom(cuts, seed, {.up = 3'000, .down = 1'000});
  }
};

TEST_F(SharedMemoryTest, CutsNeitherLoseNorDoubleNorSpoilABatch) {
  const int cuts = Repetitions(12, 120);
  const Training training = TrainingOf(Repetitions(150, 1'500));
  StartServer();
  Create(training, Accumulating(training.towers));
  std::vector<std::unique_ptr<Proxy>> proxies;
  std::vector<int64_t> shared(2);
  std::vector<std::thread> towers;
  for (int tower = 0; tower < training.towers; ++tower) {
    proxies.push_back(std::make_unique<Proxy>(port(), Cut(cuts, static_cast<unsigned>(tower))));
    towers.emplace_back([&, tower, port = proxies.back()->port()] {
      std::minstd_rand random(static_cast<unsigned>(tower) + 1);
      int deaths = cuts / 4;
      Train(training, {.tower = tower,
                       .port = port,
                       // Room for a few batches only: it is used again and again, and some travel.
                       .stream = Sharing(int64_t{400} << 10),
                       .dies = [&] { return deaths > 0 && random() % 16 == 0 && deaths-- > 0; },
                       .watch =
                           [&](const UpdateWriter& w) {
                             shared[static_cast<size_t>(tower)] += w.stats().shared_batches;
                           }});
    });
  }
  for (std::thread& tower : towers) tower.join();
  for (const auto& proxy : proxies) EXPECT_GE(proxy->cuts(), cuts);
  for (const int64_t batches : shared) EXPECT_GT(batches, 0);
  ExpectWhole(training);
}

// The new server has a door of its own, at which the same memory is handed in; once it has none.
TEST_F(SharedMemoryTest, WhatAServerLosesIsReplayedToTheNext) {
  const int64_t steps = Repetitions(60, 600);
  const int restarts = 5;
  const Training training = TrainingOf(steps);
  store_ = std::make_unique<MemoryStore>(
      [=](const std::string&, int64_t step) { return step == steps || step % 7 == 0; });
  StartServer();
  FactorOptions options = Accumulating(training.towers);
  options.window = 8;
  Create(training, options);
  Proxy first(port()), second(port());
  std::vector<std::thread> towers;
  for (int tower = 0; tower < training.towers; ++tower) {
    towers.emplace_back([&, tower] {
      Train(training, {.tower = tower,
                       .port = (tower == 0 ? first : second).port(),
                       .stream = Sharing(int64_t{4} << 20)});
    });
  }
  const std::string door = options_.shared_memory;
  for (int i = 1; i <= restarts; ++i) {
    store_->AwaitEnded(2 * steps * i / (restarts + 2));
    KillServer({&first, &second});
    options_.shared_memory = i == 3 ? "" : door;
    StartServer();
    first.SetTarget(port());
    second.SetTarget(port());
  }
  for (std::thread& tower : towers) tower.join();
  ExpectWhole(training);
}

}  // namespace
}  // namespace fisherd::faults
