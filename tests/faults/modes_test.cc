// Towers that come and go, each by itself, reduced or not, weighted by examples: end to end, over
// networks that cut.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"

namespace fisherd::faults {
namespace {

class ModesTest : public FaultTest {
 protected:
  // A network for each tower that cuts its first connections.
  void AddProxies(int towers) {
    for (int tower = 0; tower < towers; ++tower) {
      proxies_.push_back(std::make_unique<Proxy>(port(), [tower](int connection, int) {
        Proxy::Fate fate;
        if (connection < 4) fate.cut_after[kUp] = 1'500 + 1'013 * (tower + connection);
        return fate;
      }));
    }
  }
  int ProxyOf(int tower) const { return proxies_[static_cast<size_t>(tower)]->port(); }

  std::vector<std::unique_ptr<Proxy>> proxies_;
};

// 1 tower, then 4, then 2: from the steps that SetTowers names, each tower writes what is its own.
TEST_F(ModesTest, TowersComeAndGoWhileTheyTrain) {
  const Training training = {.layer = {}, .factors = {"f"}, .towers = 4, .steps = 60};
  StartServer();
  Create(training, Accumulating(1));
  AddProxies(4);
  Tower first(training, "f", 0, ProxyOf(0));
  first.WriteThrough(10);

  const auto grown = client().SetTowers("f", 4);
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_GT(*grown, 1);
  EXPECT_LE(*grown, 11);
  std::vector<std::unique_ptr<Tower>> more;
  for (int tower = 1; tower < 4; ++tower) {
    more.push_back(std::make_unique<Tower>(training, "f", tower, ProxyOf(tower)));
    EXPECT_EQ(more.back()->writer().next_step(), *grown);
  }
  const auto all_write = [&](int64_t from, int64_t through) {
    std::vector<std::thread> threads;
    threads.emplace_back([&] { first.WriteThrough(through); });
    for (const auto& tower : more) threads.emplace_back([&] { tower->WriteThrough(through); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(first.writer().WaitEnded(from).ok());
  };
  all_write(*grown, 30);
  EXPECT_TRUE(first.writer().WaitEnded(30).ok());

  const auto shrunk = client().SetTowers("f", 2);
  ASSERT_TRUE(shrunk.ok()) << shrunk.status();
  EXPECT_EQ(*shrunk, 31);
  more.resize(1);
  all_write(31, training.steps);
  EXPECT_TRUE(first.writer().WaitEnded(training.steps).ok());

  std::vector<std::vector<int>> counted;
  for (int64_t step = 1; step <= training.steps; ++step) {
    counted.push_back({0});
    if (step >= *grown) counted.back().push_back(1);
    if (step >= *grown && step < *shrunk) counted.back().insert(counted.back().end(), {2, 3});
  }
  EXPECT_EQ(ReadCovariance("f"), Sums(training.layer, "f", counted).back());
  EXPECT_EQ(Describe("f").steps_committed(), training.steps);
  EXPECT_EQ(Describe("f").held_bytes(), 0);
}

// `now` ends the wait for a tower that has gone for good.
TEST_F(ModesTest, ATowerThatIsGoneIsTakenOffNow) {
  const Training training = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 8};
  StartServer();
  Create(training, Accumulating(2));
  Tower stays(training, "f", 0, port());
  {
    Tower goes(training, "f", 1, port());
    stays.WriteThrough(3);
    goes.WriteThrough(2);
    EXPECT_TRUE(goes.writer().WaitEnded(2).ok());
  }
  const auto from = client().SetTowers("f", 1, /*now=*/true);
  ASSERT_TRUE(from.ok()) << from.status();
  EXPECT_EQ(*from, 3);
  stays.WriteThrough(training.steps);
  EXPECT_TRUE(stays.writer().WaitEnded(training.steps).ok());
  std::vector<std::vector<int>> counted(8, {0});
  counted[0] = counted[1] = {0, 1};
  EXPECT_EQ(ReadCovariance("f"), Sums(training.layer, "f", counted).back());
}

// Each tower has its own steps; the sum does not depend on their order.
TEST_F(ModesTest, AsynchronousTowersCountOnceEach) {
  const Training training = {
      .layer = {}, .factors = {"a", "b"}, .towers = 4, .steps = Repetitions(60, 600)};
  StartServer();
  FactorOptions options = Accumulating(training.towers);
  options.update_mode = v1::UPDATE_MODE_ASYNCHRONOUS;
  Create(training, options);
  AddProxies(training.towers);
  std::vector<std::thread> threads;
  for (int tower = 0; tower < training.towers; ++tower) {
    threads.emplace_back([&, tower] {
      int deaths = 3;
      std::minstd_rand random(static_cast<unsigned>(tower) + 1);
      Train(training, {.tower = tower, .port = ProxyOf(tower), .dies = [&] {
                         return deaths > 0 && random() % 16 == 0 && deaths-- > 0;
                       }});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& factor : training.factors) {
    Matrix<double> sum = Matrix<double>::Zero(training.layer.inputs + 1, training.layer.outputs);
    for (int64_t step = 1; step <= training.steps; ++step) {
      for (int tower = 0; tower < training.towers; ++tower) {
        sum += StepSum(training.layer, factor, step, {tower});
      }
    }
    EXPECT_EQ(ReadCovariance(factor), sum);
    EXPECT_EQ(Describe(factor).steps_committed(), training.towers * training.steps);
  }
}

// One tower sends its batches as they are, one reduces them, one does what is smaller.
TEST_F(ModesTest, ContributionsAndRawBatchesMakeOneStep) {
  const Training training = {.layer = {.inputs = 12, .outputs = 5, .rows = {16, 16, 2, 64}},
                             .factors = {"f"},
                             .towers = 4,
                             .steps = Repetitions(40, 400)};
  StartServer();
  Create(training, Accumulating(training.towers));
  AddProxies(training.towers);
  const v1::BatchForm forms[] = {v1::BATCH_FORM_RAW, v1::BATCH_FORM_CONTRIBUTION,
                                 v1::BATCH_FORM_UNSPECIFIED, v1::BATCH_FORM_UNSPECIFIED};
  std::vector<std::thread> threads;
  for (int tower = 0; tower < training.towers; ++tower) {
    threads.emplace_back([&, tower] {
      Train(training, {.tower = tower, .port = ProxyOf(tower), .stream = Impatient(forms[tower])});
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectWhole(training);
}

// A step without its larger tower is what the other one's examples give, and nothing of three.
TEST_F(ModesTest, ExamplesAreWeighedAmongTheTowersThatCame) {
  const Training training = {.layer = {.inputs = 12, .outputs = 5, .rows = {3, 1, 3, 1}},
                             .factors = {"f"},
                             .towers = 2,
                             .steps = 6};
  StartServer();
  FactorOptions options = Accumulating(training.towers);
  options.tower_weighting = v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED;
  options.gather_policy = v1::GATHER_POLICY_PARTIAL;
  options.gather_timeout = absl::Milliseconds(200);
  Create(training, options);
  Tower small(training, "f", 1, port(), Impatient(v1::BATCH_FORM_CONTRIBUTION));
  Tower large(training, "f", 0, port());
  // The server has the small tower's batches before the large one may begin, or does without.
  const auto small_first = [&](int64_t through) {
    small.WriteThrough(through);
    v1::FactorInfo info;
    do {
      info = Describe("f");
    } while (info.next() <= through && info.towers(1).received_through() < through);
  };
  small_first(3);
  large.TryWrite().status().IgnoreError();
  EXPECT_TRUE(small.writer().WaitEnded(3).ok());  // 2 and 3 without tower 0
  small_first(training.steps);
  large.WriteThrough(training.steps);
  const auto counted = Counted({&large, &small}, training.steps);
  EXPECT_EQ(counted[2], std::vector<int>{1});
  for (const auto& towers : counted) EXPECT_NE(towers, std::vector<int>{0}) << "3 is no divisor";
  EXPECT_EQ(ReadCovariance("f"),
            Sums(training.layer, "f", counted, v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED).back());
}

}  // namespace
}  // namespace fisherd::faults
