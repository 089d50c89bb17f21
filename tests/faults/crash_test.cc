// A server with a data directory that is killed (kill -9) at random moments and at every failpoint,
// or told to end: what was durable is there, after its proper end all that was acknowledged, and
// with what the trainers send again every sum has the bits of a run that nothing has disturbed.

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/store/failpoint.h"
#include "tests/faults/fault_test.h"
#include "tests/faults/server_process.h"
#include "tests/long_tests.h"
#include "tests/test_path.h"

namespace fisherd::faults {
namespace {

constexpr int kTowers = 2;

FactorOptions Accumulating(v1::DurabilityLevel level) {
  return {.towers = kTowers, .zero_debias = false, .window = 8, .durability = level};
}

// What was told of a factor, by all its trainers.
class Told {
 public:
  void Add(const UpdateWriter& writer) {
    const v1::Progress progress = writer.progress();
    Raise(durable_[writer.factor()], progress.durable());
    Raise(ended_[writer.factor()], progress.next() - 1);
  }
  int64_t durable(const std::string& factor) { return durable_[factor]; }
  int64_t ended(const std::string& factor) { return ended_[factor]; }
  explicit Told(const std::vector<std::string>& factors) {
    for (const std::string& factor : factors) {
      durable_[factor] = 0;
      ended_[factor] = 0;
    }
  }

 private:
  static void Raise(std::atomic<int64_t>& value, int64_t to) {
    int64_t before = value;
    while (before < to && !value.compare_exchange_weak(before, to)) {
    }
  }
  std::map<std::string, std::atomic<int64_t>> durable_;
  std::map<std::string, std::atomic<int64_t>> ended_;
};

class CrashTest : public testing::Test {
 protected:
  CrashTest() {
    std::filesystem::remove_all(directory_);
    training_ = {.layer = {},
                 .factors = {"sync", "snapshot/1", "snapshot/2", "memory"},
                 .towers = kTowers,
                 .steps = 1};
  }
  ~CrashTest() override {
    server_.Kill();
    if (HasFailure()) {
      ADD_FAILURE() << server_.log();
    } else {
      std::filesystem::remove_all(directory_);
    }
  }

  bool Start(const std::string& failpoints = "") {
    return server_.Start({"--snapshot-interval=20ms", "--gather-timeout=60s"},
                         {"FISHERD_FAILPOINTS=" + failpoints});
  }
  Client Connect() const { return ConnectTo(server_.port()); }

  void CreateFactors() {
    Client client = Connect();
    for (const std::string& factor : training_.factors) {
      const auto level = factor == "sync"     ? v1::DURABILITY_LEVEL_SYNC
                         : factor == "memory" ? v1::DURABILITY_LEVEL_MEMORY
                                              : v1::DURABILITY_LEVEL_SNAPSHOT;
      const auto made = client.CreateFactor(factor,
                                            {.input_size = training_.layer.inputs,
                                             .output_size = training_.layer.outputs,
                                             .has_bias = true},
                                            Accumulating(level));
      ASSERT_TRUE(made.ok()) << made.status();
    }
  }

  std::vector<std::thread> StartTowers(Told& told) {
    std::vector<std::thread> towers;
    for (int tower = 0; tower < kTowers; ++tower) {
      towers.emplace_back([&, tower] {
        Train(training_,
              {.tower = tower, .port = server_.port(), .watch = [&](const UpdateWriter& writer) {
                 told.Add(writer);
                 while (writer.next_step() > allowed_) {
                   absl::SleepFor(absl::Milliseconds(1));
                 }
               }});
      });
    }
    return towers;
  }

  // After a restart: what was told is true.
  void CheckTold(const std::map<std::string, int64_t>& durable) {
    Client client = Connect();
    for (const auto& [factor, step] : durable) {
      const auto info = client.Describe(factor);
      ASSERT_TRUE(info.ok()) << info.status();
      EXPECT_GE(info->durable(), step) << factor;
    }
  }
  std::map<std::string, int64_t> Durable(Told& told) const {
    std::map<std::string, int64_t> durable;
    for (const std::string& factor : training_.factors) durable[factor] = told.durable(factor);
    return durable;
  }

  void ExpectWhole() {
    Client client = Connect();
    for (const std::string& factor : training_.factors) {
      const auto sums = WholeSums(training_.layer, factor, training_.steps, kTowers);
      const auto reading = client.Read<float>(factor, Covariance());
      ASSERT_TRUE(reading.ok()) << reading.status();
      EXPECT_EQ(Elements(reading->value).cast<double>(), sums.back()) << factor;
      const auto info = client.Describe(factor);
      EXPECT_EQ(info->next(), training_.steps + 1) << factor;
      EXPECT_EQ(info->steps_committed(), training_.steps) << factor;
      EXPECT_EQ(info->steps_failed(), 0) << factor;
    }
  }

  static Matrix<float> Elements(const LinearOperatorDiag<float>& diag) {
    const int64_t rows = diag.weight().rows() + (diag.has_bias() ? 1 : 0);
    return Eigen::Map<const Matrix<float>>(diag.diag_part().data(), rows, diag.weight().cols());
  }

  const std::string directory_ = TestPath();
  // No trainer goes beyond it, so that there is something left to disturb.
  std::atomic<int64_t> allowed_ = std::numeric_limits<int64_t>::max();
  ServerProcess server_{directory_};
  Training training_;
};

TEST_F(CrashTest, KilledAtRandomMoments) {
  const int kills = Repetitions(10, 500);
  training_.steps = 40 * kills;
  ASSERT_TRUE(Start());
  CreateFactors();
  Told told(training_.factors);
  std::vector<std::thread> towers = StartTowers(told);
  std::minstd_rand random(7);
  for (int i = 0; i < kills; ++i) {
    allowed_ = 40 * (i + 1);
    absl::SleepFor(absl::Milliseconds(1 + static_cast<int>(random() % 60)));
    const auto durable = Durable(told);
    server_.Kill();
    ASSERT_TRUE(Start());
    CheckTold(durable);
  }
  allowed_ = training_.steps + 1;
  for (std::thread& tower : towers) tower.join();
  ExpectWhole();
  // And once more, with nobody to send anything again.
  server_.Kill();
  ASSERT_TRUE(Start());
  ExpectWhole();
}

TEST_F(CrashTest, ToldToEndUnderLoadItLosesNothingThatWasAcknowledged) {
  const int ends = Repetitions(5, 100);
  training_.steps = 40 * ends;
  ASSERT_TRUE(Start());
  CreateFactors();
  Told told(training_.factors);
  std::vector<std::thread> towers = StartTowers(told);
  std::minstd_rand random(13);
  for (int i = 0; i < ends; ++i) {
    allowed_ = 40 * (i + 1);
    absl::SleepFor(absl::Milliseconds(1 + static_cast<int>(random() % 60)));
    std::map<std::string, int64_t> ended;
    for (const std::string& factor : training_.factors) ended[factor] = told.ended(factor);
    EXPECT_EQ(server_.Terminate(), 0) << server_.log();
    ASSERT_TRUE(Start());
    CheckTold(ended);  // also of the factors that promise less
  }
  allowed_ = training_.steps + 1;
  for (std::thread& tower : towers) tower.join();
  ExpectWhole();
}

// Does what steps alone do not: lives and dampings, and steps that fail.
class Meddler {
 public:
  explicit Meddler(int port) : client_(ConnectTo(port)) {
    thread_ = std::thread([this] {
      while (!stopping_) Meddle();
    });
  }
  ~Meddler() {
    stopping_ = true;
    thread_.join();
  }
  double acknowledged() const { return acknowledged_; }
  double tried() const { return tried_; }

 private:
  void Meddle() {
    tried_ = acknowledged_ + 1;
    if (client_.SetDamping("count", tried_).ok()) acknowledged_ = tried_.load();
    const std::string name = absl::StrCat("meddled/", static_cast<int64_t>(tried_) % 3);
    FactorOptions options = Accumulating(v1::DURABILITY_LEVEL_SYNC);
    options.towers = 1;
    client_.CreateFactor(name, {.input_size = 2, .output_size = 2}, options).IgnoreError();
    UpdateStream stream = client_.OpenUpdates(Impatient());
    auto writer = stream.Open(name, 0, {.take_over = true, .timeout = absl::Seconds(1)});
    if (writer.ok()) {
      const Matrix<float> large = Matrix<float>::Constant(1, 2, 1e9f);  // overflows by its weight
      const auto step = writer->Write({.inputs = large, .outputs_grads = {large}},
                                      {.decay = 1, .weight = 1e30}, absl::Seconds(1));
      if (step.ok()) writer->WaitEnded(*step, absl::Seconds(1)).IgnoreError();
    }
    client_.Reset(name).status().IgnoreError();
    client_.Delete(name).IgnoreError();
    absl::SleepFor(absl::Milliseconds(1));
  }

  Client client_;
  std::atomic<bool> stopping_ = false;
  std::atomic<double> acknowledged_ = 0;
  std::atomic<double> tried_ = 0;
  std::thread thread_;
};

TEST_F(CrashTest, KilledAtEveryFailpoint) {
  std::minstd_rand random(11);
  for (const std::string_view failpoint : server::kFailpoints) {
    SCOPED_TRACE(std::string(failpoint));
    std::filesystem::remove_all(directory_);
    ASSERT_TRUE(Start());
    training_.steps = 60;
    CreateFactors();
    server_.Kill();
    const bool at_start = failpoint.starts_with("meta");
    const bool at_end = failpoint.starts_with("shutdown");
    const int visits = at_start || at_end ? 1 : 1 + static_cast<int>(random() % 4);
    const bool started = Start(absl::StrCat(std::string(failpoint), "=kill@", visits));
    EXPECT_NE(started, at_start) << "not visited";
    if (at_start) {
      ASSERT_TRUE(Start());
    }
    Told told(training_.factors);
    std::vector<std::thread> towers = StartTowers(told);
    double acknowledged = 0, tried = 0;
    std::map<std::string, int64_t> durable;
    if (!at_start) {
      {
        const Meddler meddler(server_.port());
        if (at_end) {
          EXPECT_EQ(server_.Terminate(), -1) << "not visited";
        } else {
          EXPECT_TRUE(server_.AwaitDeath(absl::Seconds(30))) << "not visited";
        }
        durable = Durable(told);
        acknowledged = meddler.acknowledged();
        server_.Kill();
        ASSERT_TRUE(Start());
        CheckTold(durable);
        if (acknowledged > 0) {
          const auto dampings = Connect().ListDampings("count");
          ASSERT_TRUE(dampings.ok()) << dampings.status();
          ASSERT_EQ(dampings->size(), 1);
          EXPECT_GE((*dampings)[0].value(), acknowledged);
        }
        tried = meddler.tried();
      }
      EXPECT_GE(tried, acknowledged);
    }
    for (std::thread& tower : towers) tower.join();
    ExpectWhole();
    server_.Kill();
  }
}

}  // namespace
}  // namespace fisherd::faults
