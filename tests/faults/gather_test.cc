// Towers that lag, stall or hang: a step ends by its policy, and the sum holds exactly the towers
// that were told so.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/clock.h"
#include "tests/faults/fault_test.h"
#include "tests/long_tests.h"

namespace fisherd::faults {
namespace {

struct Case {
  v1::GatherPolicy policy;
  bool restarts;
};

class GatherTest : public FaultTest, public testing::WithParamInterface<Case> {
 protected:
  bool partial() const { return GetParam().policy == v1::GATHER_POLICY_PARTIAL; }

  void Start(const Training& training, absl::Duration gather_timeout, bool store_all = true) {
    store_ = std::make_unique<MemoryStore>([=](const std::string&, int64_t step) {
      return store_all || step % 7 == 0 || step == training.steps;
    });
    StartServer();
    FactorOptions options = Accumulating(training.towers);
    options.gather_policy = GetParam().policy;
    options.gather_timeout = gather_timeout;
    Create(training, options);
    for (int tower = 0; tower < training.towers; ++tower) {
      proxies_.push_back(std::make_unique<Proxy>(port(), [tower](int, int) {
        return Proxy::Fate{.delay = absl::Microseconds(700 * tower)};
      }));
    }
  }

  int ProxyOf(int tower) const { return proxies_[static_cast<size_t>(tower)]->port(); }

  void Restart() {
    std::vector<Proxy*> all;
    for (const auto& proxy : proxies_) all.push_back(proxy.get());
    KillServer(all);
    StartServer();
    for (Proxy* proxy : all) proxy->SetTarget(port());
  }

  // A step that any tower counted in is in the sum, over just those; under FAIL, over all.
  void ExpectTold(const Training& training, const std::string& factor,
                  const std::vector<std::vector<int>>& counted) {
    EXPECT_EQ(ReadCovariance(factor), Sums(training.layer, factor, counted).back());
    const auto of_size = [&](int size) {
      return std::ranges::count_if(counted, [&](const auto& c) { return std::ssize(c) == size; });
    };
    const v1::FactorInfo info = Describe(factor);
    EXPECT_EQ(info.next(), training.steps + 1);
    EXPECT_EQ(info.steps_failed(), of_size(0));
    EXPECT_EQ(info.steps_committed(), training.steps - of_size(0));
    EXPECT_EQ(info.steps_partial(), training.steps - of_size(0) - of_size(training.towers));
    EXPECT_TRUE(partial() || info.steps_partial() == 0);
    EXPECT_EQ(info.held_batches(), 0);
    EXPECT_EQ(info.held_bytes(), 0);
  }

  std::vector<std::unique_ptr<Proxy>> proxies_;
};

class StallsTest : public GatherTest {};

// Towers of different speed, and stalls at random bytes of either direction that outlast the
// gather_timeout.
TEST_P(StallsTest, TheSumHoldsJustTheTowersThatWereToldSo) {
  const int stalls = Repetitions(20, 200);
  options_.recovery_timeout = absl::Milliseconds(25);  // stalls outlast this one too
  const Training training = {
      .layer = {}, .factors = {"f"}, .towers = 2, .steps = Repetitions(80, 800)};
  Start(training, absl::Milliseconds(15), /*store_all=*/!GetParam().restarts);
  std::vector<std::unique_ptr<Tower>> towers;
  for (int tower = 0; tower < training.towers; ++tower) {
    towers.push_back(std::make_unique<Tower>(training, "f", tower, ProxyOf(tower)));
  }
  std::vector<std::thread> threads;
  for (const auto& tower : towers) {
    threads.emplace_back([&] { tower->WriteThrough(training.steps); });
  }
  std::minstd_rand random(2);
  for (int i = 0; i < stalls; ++i) {
    Proxy& proxy = *proxies_[random() % proxies_.size()];
    proxy.Stall(random() % 3 == 0 ? kDown : kUp, static_cast<int64_t>(random() % 2'000));
    // After a restart a step can need just the tower that is stalled.
    store_->AwaitEnded(std::min<int64_t>(store_->ended() + 1 + random() % 3, training.steps),
                       core::SteadyNow() + absl::Milliseconds(200));
    proxy.Resume();
    if (GetParam().restarts && i % 5 == 4) Restart();
  }
  for (std::thread& thread : threads) thread.join();
  ExpectTold(training, "f", Counted({towers[0].get(), towers[1].get()}, training.steps));
}

// It stops in the midst of a batch, and its connection stays.
TEST_P(GatherTest, AHalfSentBatchHoldsNeitherStepNorMemory) {
  const Training training = {.layer = {.inputs = 400, .outputs = 5, .rows = {4, 4, 4, 4}},
                             .factors = {"f"},
                             .towers = 2,
                             .steps = 4};
  Start(training, absl::Milliseconds(30));
  Tower quick(training, "f", 0, ProxyOf(0));
  Tower hung(training, "f", 1, ProxyOf(1));
  proxies_[1]->Stall(kUp, 3'000);
  hung.Write();  // 6,480 bytes
  proxies_[1]->AwaitStalled(kUp);
  quick.Write();
  EXPECT_EQ(quick.writer().WaitEnded(1).ok(), partial());
  const v1::FactorInfo info = Describe("f");
  EXPECT_EQ(info.next(), 2);
  EXPECT_EQ(info.held_batches(), 0);
  EXPECT_EQ(info.held_bytes(), 0);
  EXPECT_EQ(info.open_through(), 1);
  // It goes on as if nothing had been, and is told.
  proxies_[1]->Resume();
  hung.WriteThrough(training.steps);
  quick.WriteThrough(training.steps);
  const auto counted = Counted({&quick, &hung}, training.steps);
  EXPECT_EQ(counted[0], partial() ? std::vector<int>{0} : std::vector<int>{});
  ExpectTold(training, "f", counted);
}

// The other way: it sends, but takes in nothing.
TEST_P(GatherTest, APeerThatDoesNotListenHoldsNobody) {
  const Training training = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 12};
  Start(training, absl::Milliseconds(30));
  Tower quick(training, "f", 0, ProxyOf(0));
  Tower deaf(training, "f", 1, ProxyOf(1));
  proxies_[1]->Stall(kDown);
  deaf.WriteThrough(4);  // its window
  quick.WriteThrough(training.steps);
  EXPECT_FALSE(quick.writer().WaitEnded(training.steps).ok() && !partial());
  EXPECT_EQ(Describe("f").next(), training.steps + 1);
  proxies_[1]->Resume();
  deaf.WriteThrough(training.steps);
  ExpectTold(training, "f", Counted({&quick, &deaf}, training.steps));
}

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  return absl::StrCat(info.param.policy == v1::GATHER_POLICY_PARTIAL ? "Partial" : "Fail",
                      info.param.restarts ? "WithRestarts" : "");
}

INSTANTIATE_TEST_SUITE_P(Policies, GatherTest,
                         testing::Values(Case{v1::GATHER_POLICY_PARTIAL, false},
                                         Case{v1::GATHER_POLICY_FAIL, false}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Policies, StallsTest,
                         testing::Values(Case{v1::GATHER_POLICY_PARTIAL, false},
                                         Case{v1::GATHER_POLICY_FAIL, false},
                                         Case{v1::GATHER_POLICY_PARTIAL, true},
                                         Case{v1::GATHER_POLICY_FAIL, true}),
                         NameOf);

}  // namespace
}  // namespace fisherd::faults
