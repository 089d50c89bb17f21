#include "core/watch_hub.h"

#include <gmock/gmock.h>

#include <atomic>
#include <map>
#include <thread>
#include <utility>

#include "tests/core/factor_harness.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using enum FactorEventKind;

FactorEvent Event(FactorEventKind kind, const std::string& factor, int64_t next = 1,
                  uint64_t incarnation = 1) {
  return {.kind = kind, .factor = factor, .version = {incarnation, 7, next - 1}, .next = next};
}

// Kind, factor and next of each.
std::vector<std::tuple<FactorEventKind, std::string, int64_t>> Take(Watcher& watcher,
                                                                    size_t limit = 100) {
  std::vector<std::tuple<FactorEventKind, std::string, int64_t>> result;
  for (const FactorEvent& event : watcher.Take(limit)) {
    result.emplace_back(event.kind, event.factor, event.next);
  }
  return result;
}
using Told = std::tuple<FactorEventKind, std::string, int64_t>;

class WatchHubTest : public ::testing::Test {
 protected:
  ~WatchHubTest() override { pool_.reset(); }

  std::function<void()> CountWakes() {
    return [this] {
      MutexLock lock(&mutex_);
      ++wakes_;
      woken_.NotifyAll();
    };
  }
  void AwaitWakes(int count) {
    MutexLock lock(&mutex_);
    while (wakes_ < count) woken_.Wait(&mutex_);
  }
  int wakes() {
    MutexLock lock(&mutex_);
    return wakes_;
  }

  std::optional<ComputePool> pool_{std::in_place, 1};
  WatchHub hub_{&*pool_};
  Mutex mutex_;
  CondVar woken_;
  int wakes_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST_F(WatchHubTest, TellsAFactorsEventsInTheirOrder) {
  const auto watcher = hub_.Watch("", [] {});
  watcher->Present(Event(kPresent, "f", 3));
  hub_.Publish(Event(kStepEnded, "f", 4));
  hub_.Publish(Event(kCreated, "g"));
  hub_.Publish(Event(kStepEnded, "f", 5));
  hub_.Publish(Event(kDeleted, "g"));
  EXPECT_THAT(Take(*watcher, 2), ElementsAre(Told{kPresent, "f", 3}, Told{kStepEnded, "f", 4}));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kCreated, "g", 1}, Told{kStepEnded, "f", 5},
                                          Told{kDeleted, "g", 1}));
  EXPECT_THAT(Take(*watcher), IsEmpty());
}

TEST_F(WatchHubTest, WhatCameBeforeThePresentIsNotTold) {
  const auto watcher = hub_.Watch("", [] {});
  hub_.Publish(Event(kStepEnded, "f", 2));
  hub_.Publish(Event(kDeleted, "g"));
  watcher->Present(Event(kPresent, "f", 2));
  watcher->Present(Event(kPresent, "f", 2));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kPresent, "f", 2}));
}

TEST_F(WatchHubTest, WhatIsCreatedMeanwhileIsNotPresentedAgain) {
  const auto watcher = hub_.Watch("", [] {});
  hub_.Publish(Event(kCreated, "f"));
  hub_.Publish(Event(kStepEnded, "f", 2));
  watcher->Present(Event(kPresent, "f", 2));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kCreated, "f", 1}, Told{kStepEnded, "f", 2}));
}

TEST_F(WatchHubTest, AnOlderLifeOfTheNameIsNotMistakenForTheNext) {
  const auto watcher = hub_.Watch("", [] {});
  watcher->Present(Event(kPresent, "f", 9, /*incarnation=*/1));
  hub_.Publish(Event(kCreated, "f", 1, 2));
  hub_.Publish(Event(kDeleted, "f", 9, 1));
  hub_.Publish(Event(kStepEnded, "f", 2, 2));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kPresent, "f", 9}, Told{kCreated, "f", 1},
                                          Told{kStepEnded, "f", 2}));
}

TEST_F(WatchHubTest, OnlyNamesWithThePrefix) {
  const auto all = hub_.Watch("", [] {});
  const auto some = hub_.Watch("mlp/", [] {});
  hub_.Publish(Event(kCreated, "mlp/0"));
  hub_.Publish(Event(kCreated, "mlp"));
  EXPECT_EQ(Take(*all).size(), 2);
  EXPECT_THAT(Take(*some), ElementsAre(Told{kCreated, "mlp/0", 1}));
}

TEST_F(WatchHubTest, BeyondTheCapacityEachFactorHasOneEvent) {
  const auto watcher = hub_.Watch(
      "", [] {}, /*capacity=*/2);
  for (const char* name : {"a", "b", "c", "d"}) watcher->Present(Event(kPresent, name));
  for (int64_t next = 2; next <= 1000; ++next) {
    for (const char* name : {"a", "b", "c"}) hub_.Publish(Event(kStepEnded, name, next));
  }
  hub_.Publish(Event(kDeleted, "d", 1));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kPresent, "a", 1}, Told{kPresent, "b", 1},
                                          Told{kPresent, "c", 1000}, Told{kDeleted, "d", 1},
                                          Told{kSkipped, "a", 1000}, Told{kSkipped, "b", 1000}));
  // There is room again.
  hub_.Publish(Event(kStepEnded, "a", 1001));
  hub_.Publish(Event(kStepEnded, "a", 1002));
  EXPECT_THAT(Take(*watcher),
              ElementsAre(Told{kStepEnded, "a", 1001}, Told{kStepEnded, "a", 1002}));
}

TEST_F(WatchHubTest, ASingleEventBeyondTheCapacityIsNotSkipped) {
  const auto watcher = hub_.Watch(
      "", [] {}, /*capacity=*/1);
  watcher->Present(Event(kPresent, "a"));
  hub_.Publish(Event(kStepEnded, "a", 2));
  EXPECT_THAT(Take(*watcher, 1), ElementsAre(Told{kPresent, "a", 1}));
  // While one is to be merged into, later ones are: never told before it.
  hub_.Publish(Event(kCreated, "b"));
  EXPECT_THAT(Take(*watcher), ElementsAre(Told{kStepEnded, "a", 2}, Told{kCreated, "b", 1}));
}

TEST_F(WatchHubTest, WakesOnlyOneWhoHasFoundNothing) {
  const auto watcher = hub_.Watch("", CountWakes());
  hub_.Publish(Event(kCreated, "a"));  // nobody waits for it yet
  EXPECT_EQ(Take(*watcher).size(), 1);
  EXPECT_THAT(Take(*watcher), IsEmpty());
  hub_.Publish(Event(kStepEnded, "a", 2));
  hub_.Publish(Event(kStepEnded, "a", 3));
  AwaitWakes(1);
  EXPECT_EQ(Take(*watcher).size(), 2);
  EXPECT_THAT(Take(*watcher), IsEmpty());
  hub_.Publish(Event(kStepEnded, "a", 4));
  AwaitWakes(2);
  pool_.reset();  // all that was scheduled has run
  EXPECT_EQ(wakes(), 2);
}

TEST_F(WatchHubTest, OneWhoHasGoneIsNotWoken) {
  auto watcher = hub_.Watch("", CountWakes());
  EXPECT_TRUE(hub_.watched());
  EXPECT_THAT(Take(*watcher), IsEmpty());
  Mutex gate;
  gate.Lock();
  pool_->Schedule([&gate] { MutexLock lock(&gate); });
  hub_.Publish(Event(kCreated, "a"));  // the wake waits behind the gate
  watcher = nullptr;
  EXPECT_FALSE(hub_.watched());
  gate.Unlock();
  pool_.reset();
  EXPECT_EQ(wakes(), 0);
}

TEST_F(WatchHubTest, ShutdownWakesEverybodyAndWhoComesLater) {
  const auto before = hub_.Watch("", CountWakes());
  EXPECT_FALSE(before->closed());
  hub_.Shutdown();
  EXPECT_TRUE(before->closed());
  AwaitWakes(1);
  const auto after = hub_.Watch("", CountWakes());
  EXPECT_TRUE(after->closed());
}

// Watchers join while factors live: whatever they see of a factor begins with how it stood and
// leaves nothing out.
TEST(WatchRaceTest, APresentIsFollowedByEveryEventAfterIt) {
  constexpr int kFactors = 3;
  std::atomic<bool> stop = false;
  ComputePool pool(1);
  WatchHub hub(&pool);
  struct Life {
    Mutex mutex;
    int64_t next ABSL_GUARDED_BY(mutex) = 1;
  };
  Life lives[kFactors];
  std::vector<std::thread> factors;
  for (int f = 0; f < kFactors; ++f) {
    factors.emplace_back([&, f] {
      while (!stop) {
        MutexLock lock(&lives[f].mutex);
        ++lives[f].next;
        if (hub.watched()) hub.Publish(Event(kStepEnded, std::to_string(f), lives[f].next));
      }
    });
  }
  for (int round = 0; round < 50; ++round) {
    const auto watcher = hub.Watch(
        "", [] {}, 1 << 20);
    for (int f = 0; f < kFactors; ++f) {
      MutexLock lock(&lives[f].mutex);
      watcher->Present(Event(kPresent, std::to_string(f), lives[f].next));
    }
    std::map<std::string, int64_t> last;
    for (int takes = 0; takes < 20; ++takes) {
      for (const FactorEvent& event : watcher->Take(256)) {
        const bool first = last.try_emplace(event.factor, event.next - 1).second;
        ASSERT_EQ(event.kind, first ? kPresent : kStepEnded);
        ASSERT_EQ(event.next, last[event.factor] + 1);
        last[event.factor] = event.next;
      }
    }
  }
  stop = true;
  for (std::thread& factor : factors) factor.join();
}

class FactorWatchTest : public FactorTest {
 protected:
  std::shared_ptr<Watcher> WatchAll() {
    auto watcher = registry_->watchers().Watch("", [] {});
    for (const auto& factor : registry_->List("", "", 100)) factor->Present(*watcher);
    return watcher;
  }
};

TEST_F(FactorWatchTest, AFactorTellsItsLife) {
  const auto factor = Create("f", Golden());
  const auto watcher = WatchAll();
  const auto stream = OpenTower(*factor, 0);
  BatchHeader header = Header(*factor, 1, 2);
  header.label = 99;
  ASSERT_TRUE(Send(*factor, header, golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  Create("g", Golden(2));
  ASSERT_TRUE(registry_->Reset("f").ok());
  ASSERT_TRUE(registry_->Delete("g").ok());

  const std::vector<FactorEvent> events = watcher->Take(100);
  ASSERT_EQ(events.size(), 5);
  EXPECT_EQ(events[0].kind, kPresent);
  EXPECT_EQ(events[0].version, (Version{1000, 77, 0}));
  EXPECT_EQ(events[1].kind, kStepEnded);
  EXPECT_EQ(events[1].factor, "f");
  EXPECT_EQ(events[1].version, (Version{1000, 77, 1}));
  EXPECT_EQ(events[1].next, 2);
  EXPECT_EQ(events[1].durable, 1);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[1].outcome, StepOutcome::kWhole);
  EXPECT_EQ(events[1].towers_counted, 1);
  EXPECT_EQ(events[1].label, 99);
  EXPECT_EQ(events[2].kind, kCreated);
  EXPECT_EQ(events[2].factor, "g");
  EXPECT_EQ(events[2].towers, 2);
  EXPECT_EQ(events[3].kind, kReset);
  EXPECT_EQ(events[3].version, (Version{1002, 77, 0}));
  EXPECT_EQ(events[3].next, 1);
  EXPECT_EQ(events[4].kind, kDeleted);
  EXPECT_EQ(events[4].factor, "g");
}

TEST_F(FactorWatchTest, ADeletedFactorIsNotPresented) {
  const auto factor = Create("f", Golden());
  ASSERT_TRUE(registry_->Delete("f").ok());
  const auto watcher = registry_->watchers().Watch("", [] {});
  factor->Present(*watcher);
  EXPECT_THAT(watcher->Take(100), IsEmpty());
}

}  // namespace
}  // namespace fisherd::core
