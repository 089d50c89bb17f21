// Connections are cut and trainers die, at any byte: every batch counts once.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"

namespace fisherd::faults {
namespace {

class CutsTest : public FaultTest {
 protected:
  // The first `cuts` connections are cut: a few in the handshake, most in the midst of batches,
  // some while answers come.
  static Proxy::Plan Cut(int cuts, unsigned seed) {
    return CutAtRandom(cuts, seed, {.up = 12'000, .down = 2'000});
  }

  // Trains with readers, `cuts` cuts and `deaths` deaths in all, and checks everything.
  void TrainAndCheck(const Training& training, int cuts, int deaths, v1::BatchForm form) {
    StartServer();
    Create(training, Accumulating(training.towers));
    History history;
    const int cuts_each = cuts / training.towers + 1;
    const int deaths_each = deaths / training.towers + 1;
    std::vector<std::unique_ptr<Proxy>> proxies;
    {
      Reader reader(ConnectTo(port()), training.factors, &history);
      std::vector<std::thread> towers;
      for (int tower = 0; tower < training.towers; ++tower) {
        proxies.push_back(
            std::make_unique<Proxy>(port(), Cut(cuts_each, static_cast<unsigned>(tower))));
        towers.emplace_back([&, tower, port = proxies.back()->port()] {
          TrainTower(training, tower, port, deaths_each, form, history);
        });
      }
      for (std::thread& tower : towers) tower.join();
    }
    for (const auto& proxy : proxies) EXPECT_GE(proxy->cuts(), cuts_each);
    ExpectWhole(training);
    for (const std::string& factor : training.factors) {
      EXPECT_GT(history.reads(factor), 0);
      history.Check(factor, WholeSums(training.layer, factor, training.steps, training.towers));
    }
  }

  static void TrainTower(const Training& training, int tower, int port, int deaths,
                         v1::BatchForm form, History& history) {
    // Deaths are spread over the batches that there are.
    std::minstd_rand random(static_cast<unsigned>(tower) + 1);
    const int64_t batches = training.steps * std::ssize(training.factors);
    const auto often = static_cast<unsigned>(std::max<int64_t>(batches / (4 * deaths), 2));
    Train(training, {.tower = tower,
                     .port = port,
                     .stream = Impatient(form),
                     .dies = [&] { return deaths > 0 && random() % often == 0 && deaths-- > 0; },
                     .watch =
                         [&](const UpdateWriter& writer) {
                           const v1::Progress progress = writer.progress();
                           EXPECT_EQ(progress.durable(), progress.next() - 1);
                           EXPECT_EQ(progress.missed_size(), 0);
                           history.Acknowledge(writer.factor(), progress.next() - 1);
                         }});
    EXPECT_EQ(deaths, 0);
  }
};

TEST_F(CutsTest, NoBatchIsLostOrCountedTwice) {
  const int cuts = Repetitions(50, 500);
  const Training training = {.layer = {.inputs = 30, .outputs = 10, .rows = {8, 4, 1, 4}},
                             .factors = {"a", "b/1", "b/2"},
                             .towers = 4,
                             .steps = Repetitions(200, 2'000)};
  TrainAndCheck(training, cuts, cuts / 3, v1::BATCH_FORM_RAW);
}

// Large batches, in several messages each, and small ones that are sent as contributions.
TEST_F(CutsTest, ContributionsAreNeitherLostNorCountedTwice) {
  const int cuts = Repetitions(16, 160);
  const Training training = {.layer = {.inputs = 12, .outputs = 4, .rows = {64, 2, 64, 2}},
                             .factors = {"a", "b"},
                             .towers = 2,
                             .steps = Repetitions(200, 2'000)};
  TrainAndCheck(training, cuts, cuts / 4, v1::BATCH_FORM_UNSPECIFIED);
}

}  // namespace
}  // namespace fisherd::faults
