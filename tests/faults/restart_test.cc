// The server dies and comes back with what was on disk: what it had counted since is counted again,
// from what the trainers have kept.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"

namespace fisherd::faults {
namespace {

class RestartTest : public FaultTest {
 protected:
  // Of each factor's steps about one in `often` is saved, and the last.
  void StoreOneIn(unsigned often, int64_t last) {
    store_ = std::make_unique<MemoryStore>([=](const std::string& factor, int64_t step) {
      std::minstd_rand random(static_cast<unsigned>(step * 31 + factor.back()));
      random.discard(8);
      return step == last || random() % often == 0;
    });
  }

  void AddProxies(int count) {
    for (int i = 0; i < count; ++i) proxies_.push_back(std::make_unique<Proxy>(port()));
  }
  std::vector<Proxy*> proxies() const {
    std::vector<Proxy*> all;
    for (const auto& proxy : proxies_) all.push_back(proxy.get());
    return all;
  }
  void Restart() {
    KillServer(proxies());
    StartServer();
    for (Proxy* proxy : proxies()) proxy->SetTarget(port());
  }

  // What a trainer is told is true: durable is on disk, and what is durable can be read for ever.
  void CheckDurable(const UpdateWriter& writer, History& history) {
    const v1::Progress progress = writer.progress();
    EXPECT_LE(progress.durable(), store_->saved_step(writer.factor()));
    history.Acknowledge(writer.factor(), progress.durable());
  }

  std::vector<std::unique_ptr<Proxy>> proxies_;
};

// Each crash comes after so many more steps have ended.
TEST_F(RestartTest, WhatTheServerLosesIsReplayed) {
  const int restarts = Repetitions(6, 60);
  const Training training = {
      .layer = {}, .factors = {"a", "b/1", "b/2"}, .towers = 2, .steps = Repetitions(150, 1'500)};
  StoreOneIn(6, training.steps);
  StartServer();
  FactorOptions options = Accumulating(training.towers);
  options.window = 8;
  Create(training, options);
  AddProxies(training.towers + 1);
  History history;
  {
    Reader reader(ConnectTo(proxies_.back()->port()), training.factors, &history);
    std::vector<std::thread> towers;
    for (int tower = 0; tower < training.towers; ++tower) {
      towers.emplace_back([&, tower] {
        Train(training, {.tower = tower,
                         .port = proxies_[static_cast<size_t>(tower)]->port(),
                         .watch = [&](const UpdateWriter& w) { CheckDurable(w, history); }});
      });
    }
    const int64_t all = training.steps * std::ssize(training.factors);
    for (int i = 0; i < restarts; ++i) {
      store_->AwaitEnded(all * (i + 1) / (restarts + 2));
      Restart();
    }
    for (std::thread& tower : towers) tower.join();
  }
  ExpectWhole(training);
  for (const std::string& factor : training.factors) {
    EXPECT_GT(history.reads(factor), 0);
    history.Check(factor, WholeSums(training.layer, factor, training.steps, training.towers),
                  /*went_back=*/true);
  }
}

// A step that was told to have ended without a tower, or in vain, ends so again.
TEST_F(RestartTest, OutcomesThatWereToldStayTrue) {
  for (const auto policy : {v1::GATHER_POLICY_PARTIAL, v1::GATHER_POLICY_FAIL}) {
    const bool partial = policy == v1::GATHER_POLICY_PARTIAL;
    const Training training = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 5};
    proxies_.clear();
    store_ =
        std::make_unique<MemoryStore>([](const std::string&, int64_t step) { return step == 5; });
    StartServer();
    FactorOptions options = Accumulating(training.towers);
    options.gather_policy = policy;
    options.gather_timeout = absl::Milliseconds(30);
    options.window = 8;
    Create(training, options);
    AddProxies(2);
    {
      Tower slow(training, "f", 1, proxies_[1]->port());
      Tower quick(training, "f", 0, proxies_[0]->port());
      proxies_[1]->Stall(kUp);
      quick.Write();
      quick.Write();
      EXPECT_EQ(quick.writer().WaitEnded(2).ok(), partial);
      proxies_[1]->Resume();
      // How steps 3 and 4 end does not matter, but it is told.
      Restart();
      quick.WriteThrough(5);
      slow.WriteThrough(5);
      const std::vector<std::vector<int>> counted = Counted({&quick, &slow}, 5);
      EXPECT_EQ(counted[0], partial ? std::vector<int>{0} : std::vector<int>{});
      EXPECT_EQ(counted[1], counted[0]);
      EXPECT_EQ(ReadCovariance("f"), Sums(training.layer, "f", counted).back());
      const v1::FactorInfo info = Describe("f");
      EXPECT_EQ(info.next(), 6);
      EXPECT_GE(partial ? info.steps_partial() : info.steps_failed(), 2);
    }
    KillServer(proxies());
  }
}

// What was never on disk: the factor is there as it was created, and everything comes again.
TEST_F(RestartTest, AServerThatLosesEverythingGetsItAgain) {
  const Training training = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 4};
  store_ =
      std::make_unique<MemoryStore>([](const std::string&, int64_t step) { return step == 4; });
  StartServer();
  Create(training, Accumulating(training.towers));
  AddProxies(2);
  Tower one(training, "f", 0, proxies_[0]->port());
  Tower other(training, "f", 1, proxies_[1]->port());
  for (int64_t step = 1; step <= 3; ++step) {
    one.Write();
    other.Write();
    ASSERT_TRUE(one.writer().WaitEnded(step).ok());
    ASSERT_TRUE(other.writer().WaitEnded(step).ok());
    EXPECT_EQ(one.writer().progress().durable(), 0);
    const v1::Version before = Describe("f").version();
    KillServer(proxies());
    StartServer();
    // Before the trainers get there.
    EXPECT_EQ(Describe("f").version().incarnation(), before.incarnation());
    EXPECT_EQ(Describe("f").version().step(), 0);
    EXPECT_GT(Describe("f").version().epoch(), before.epoch());
    for (Proxy* proxy : proxies()) proxy->SetTarget(port());
  }
  one.Write();
  other.Write();
  EXPECT_TRUE(one.writer().WaitDurable(4).ok());
  EXPECT_TRUE(other.writer().WaitDurable(4).ok());
  ExpectWhole(training);
}

}  // namespace
}  // namespace fisherd::faults
