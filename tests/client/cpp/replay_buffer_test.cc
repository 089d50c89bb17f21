#include "client/cpp/replay_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "absl/hash/hash.h"

namespace fisherd {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

ReplayBuffer::Progress At(int64_t next) {
  return {.incarnation = 7,
          .epoch = 3,
          .next = next,
          .durable = next - 1,
          .open_through = next + 1,
          .window = 4,
          .first = next,
          .missed = {}};
}

class ReplayBufferTest : public testing::Test {
 protected:
  ReplayBufferTest() { EXPECT_TRUE(buffer_.OnOpened(At(5))); }

  void Push(int count) {
    for (int i = 0; i < count; ++i) buffer_.Push(10, nullptr);
  }
  // Sends all that may be sent; returns the steps.
  std::vector<int64_t> Send() {
    std::vector<int64_t> steps;
    while (const ReplayBuffer::Kept* batch = buffer_.NextToSend()) {
      steps.push_back(batch->step);
      buffer_.BeginSend();
    }
    return steps;
  }
  std::vector<int64_t> Kept() const {
    std::vector<int64_t> steps;
    for (const ReplayBuffer::Kept& batch : buffer_.kept()) steps.push_back(batch.step);
    return steps;
  }
  void Ack(int64_t next, int64_t durable, std::vector<ReplayBuffer::Run> missed = {}) {
    ReplayBuffer::Progress progress = At(next);
    progress.durable = durable;
    progress.missed = std::move(missed);
    buffer_.OnAck(progress);
  }
  void AckOpen(int64_t next, int64_t open_through) {
    ReplayBuffer::Progress progress = At(next);
    progress.open_through = open_through;
    buffer_.OnAck(progress);
  }

  ReplayBuffer buffer_;
};

TEST(ReplayBufferUnopenedTest, NothingIsHeardOrSentBeforeOpened) {
  ReplayBuffer buffer;
  EXPECT_EQ(buffer.range().from, 0);
  EXPECT_EQ(buffer.range().through, 0);
  buffer.OnAck(At(9));
  buffer.OnHold(1);
  EXPECT_FALSE(buffer.OnRefused(1));
  EXPECT_FALSE(buffer.has_room());
  EXPECT_EQ(buffer.NextToSend(), nullptr);
  EXPECT_EQ(buffer, ReplayBuffer());
}

TEST_F(ReplayBufferTest, ATowerBeginsAtFirst) {
  EXPECT_EQ(buffer_.next_step(), 5);
  ReplayBuffer later;
  ReplayBuffer::Progress progress = At(5);
  progress.first = 8;
  EXPECT_TRUE(later.OnOpened(progress));
  EXPECT_EQ(later.next_step(), 8);
  EXPECT_TRUE(later.has_room());
  later.Push(1, nullptr);
  EXPECT_FALSE(later.has_room()) << "9 = next + window";
  EXPECT_EQ(later.NextToSend()->step, 8);
}

TEST_F(ReplayBufferTest, StepsAreSentInOrderAndOnlyBelowNextPlusWindow) {
  Push(6);  // 5 to 10
  EXPECT_FALSE(buffer_.has_room());
  EXPECT_THAT(Send(), ElementsAre(5, 6, 7, 8));
  Ack(6, 5);
  EXPECT_THAT(Send(), ElementsAre(9));
  Ack(8, 7);
  EXPECT_THAT(Send(), ElementsAre(10));
  EXPECT_TRUE(buffer_.has_room());
}

TEST_F(ReplayBufferTest, OnlyWhatCountedAndIsDurableIsFreed) {
  Push(3);
  Send();
  Ack(7, 4);
  EXPECT_THAT(Kept(), ElementsAre(5, 6, 7)) << "counted, but not durable";
  Ack(7, 5);
  EXPECT_THAT(Kept(), ElementsAre(6, 7));
  EXPECT_EQ(buffer_.bytes(), 20);
  EXPECT_EQ(buffer_.range().from, 6);
  EXPECT_EQ(buffer_.range().through, 7);
  Ack(8, 7);
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_EQ(buffer_.range().from, 8);
  EXPECT_EQ(buffer_.range().through, 7);
}

TEST_F(ReplayBufferTest, WhatDidNotCountIsFreedAtOnce) {
  Push(3);
  Send();
  Ack(7, 4, {{.first = 6, .last = 6}});
  EXPECT_THAT(Kept(), ElementsAre(5, 7));
  EXPECT_EQ(buffer_.FindMissed(5), nullptr);
  EXPECT_FALSE(buffer_.FindMissed(6)->failed);
}

TEST_F(ReplayBufferTest, AcksOfAnotherLifeAreIgnored) {
  Push(1);
  const ReplayBuffer before = buffer_;
  ReplayBuffer::Progress other = At(6);
  other.incarnation = 8;
  buffer_.OnAck(other);
  other = At(6);
  other.epoch = 4;
  buffer_.OnAck(other);
  buffer_.OnCut();
  buffer_.OnAck(At(6));
  EXPECT_THAT(Kept(), ElementsAre(5));
  EXPECT_EQ(buffer_.next(), before.next());
}

TEST_F(ReplayBufferTest, AcksNeverGoBack) {
  Push(2);
  Ack(7, 6);
  Ack(6, 5);
  EXPECT_EQ(buffer_.next(), 7);
  EXPECT_EQ(buffer_.durable(), 6);
}

TEST_F(ReplayBufferTest, WhatIsHeldIsSentAgainOnceItIsOpen) {
  Push(3);
  EXPECT_THAT(Send(), ElementsAre(5, 6, 7));
  buffer_.OnHold(6);
  EXPECT_THAT(Send(), IsEmpty());
  AckOpen(5, 5);
  EXPECT_THAT(Send(), IsEmpty());
  AckOpen(5, 6);
  EXPECT_THAT(Send(), ElementsAre(6, 7)) << "7 was not held by itself";
}

TEST_F(ReplayBufferTest, EveryHoldIsAPromiseOfItsOwn) {
  Push(3);
  Send();
  buffer_.OnHold(5);
  buffer_.OnHold(6);
  buffer_.OnHold(7);
  AckOpen(5, 5);
  EXPECT_THAT(Send(), ElementsAre(5)) << "6 would only be held again";
  AckOpen(5, 6);
  EXPECT_THAT(Send(), ElementsAre(6));
  AckOpen(6, 7);
  EXPECT_THAT(Send(), ElementsAre(7));
}

TEST_F(ReplayBufferTest, AHoldTakesBackWhatWasOpen) {
  Push(2);
  AckOpen(5, 8);
  Send();
  buffer_.OnHold(6);  // a larger batch has closed it
  EXPECT_EQ(buffer_.open_through(), 5);
  EXPECT_THAT(Send(), IsEmpty());
  buffer_.OnHold(4);
  EXPECT_EQ(buffer_.open_through(), 5) << "of a step that has ended";
  Ack(7, 4, {{.first = 6, .last = 6}});
  EXPECT_THAT(Send(), IsEmpty()) << "it ended meanwhile";
}

TEST_F(ReplayBufferTest, AHoldDuringTheSendingCounts) {
  Push(1);
  buffer_.BeginSend();
  buffer_.OnHold(5);
  AckOpen(5, 5);
  EXPECT_THAT(Send(), ElementsAre(5));
}

TEST_F(ReplayBufferTest, ACutReplaysFromNextOn) {
  Push(4);
  Send();
  Ack(7, 5);
  buffer_.OnCut();
  EXPECT_FALSE(buffer_.open());
  EXPECT_THAT(Send(), IsEmpty());
  EXPECT_TRUE(buffer_.has_room()) << "there is room for two more, stream or not";
  EXPECT_EQ(buffer_.range().from, 6);
  ReplayBuffer::Progress progress = At(7);
  progress.durable = 5;
  EXPECT_TRUE(buffer_.OnOpened(progress));
  EXPECT_THAT(Kept(), ElementsAre(6, 7, 8));
  EXPECT_THAT(Send(), ElementsAre(7, 8));
}

TEST_F(ReplayBufferTest, AHoldEndsWithItsStream) {
  Push(1);
  Send();
  buffer_.OnHold(5);
  buffer_.OnCut();
  ReplayBuffer::Progress progress = At(5);
  progress.open_through = 4;
  EXPECT_TRUE(buffer_.OnOpened(progress));
  EXPECT_THAT(Send(), ElementsAre(5));
}

TEST_F(ReplayBufferTest, ANewEpochIsJudgedAnew) {
  Push(4);
  Send();
  Ack(8, 5);
  EXPECT_THAT(Kept(), ElementsAre(6, 7, 8));
  buffer_.OnCut();
  ReplayBuffer::Progress progress = At(7);  // back from 8
  progress.epoch = 4;
  progress.durable = 6;
  progress.missed = {{.first = 7, .last = 7, .failed = true}};  // recorded, will end so again
  EXPECT_TRUE(buffer_.OnOpened(progress));
  EXPECT_EQ(buffer_.next(), 7);
  EXPECT_THAT(Kept(), ElementsAre(7, 8)) << "7 has not ended in this epoch";
  EXPECT_THAT(Send(), ElementsAre(7, 8));
  buffer_.OnAck(At(9));
  EXPECT_THAT(Kept(), ElementsAre(7, 8)) << "of the epoch before";
}

TEST_F(ReplayBufferTest, AnotherIncarnationChangesNothing) {
  Push(1);
  buffer_.OnCut();
  const ReplayBuffer before = buffer_;
  ReplayBuffer::Progress progress = At(1);
  progress.incarnation = 8;
  EXPECT_FALSE(buffer_.OnOpened(progress));
  EXPECT_EQ(buffer_, before);
}

TEST_F(ReplayBufferTest, ARefusalTakesBackTheStepsAfterIt) {
  Push(3);
  buffer_.BeginSend();
  buffer_.BeginSend();
  EXPECT_TRUE(buffer_.OnRefused(6));
  EXPECT_EQ(buffer_.next_step(), 6);
  EXPECT_THAT(Kept(), ElementsAre(5));
  EXPECT_FALSE(buffer_.OnRefused(7)) << "it was taken back";
  Push(1);
  EXPECT_THAT(Send(), ElementsAre(6));
}

TEST_F(ReplayBufferTest, ALateBatchGoesAlone) {
  Push(3);
  Send();
  buffer_.OnLate(5);
  EXPECT_THAT(Kept(), ElementsAre(6, 7));
  EXPECT_EQ(buffer_.bytes(), 20);
  EXPECT_EQ(buffer_.next_step(), 8);
}

TEST_F(ReplayBufferTest, AStepThatEndedBeforeItWasWrittenIsSkipped) {
  Ack(7, 4, {{.first = 5, .last = 6}});
  EXPECT_TRUE(buffer_.next_step_is_late());
  buffer_.SkipStep();
  buffer_.SkipStep();
  EXPECT_FALSE(buffer_.next_step_is_late());
  Push(1);
  EXPECT_THAT(Send(), ElementsAre(7));
}

TEST_F(ReplayBufferTest, RunsOfMissedStepsAreJoinedAndToldOnce) {
  Ack(6, 4, {{.first = 5, .last = 5}});
  Ack(8, 4, {{.first = 6, .last = 6}, {.first = 7, .last = 7, .failed = true}});
  EXPECT_THAT(buffer_.missed(),
              ElementsAre(ReplayBuffer::Run{.first = 5, .last = 6}, ReplayBuffer::Run{7, 7, true}));
  Ack(20, 4, {{.first = 2, .last = 9}, {.first = 12, .last = 15}});
  EXPECT_THAT(buffer_.missed(), ElementsAre(ReplayBuffer::Run{2, 4}, ReplayBuffer::Run{5, 6},
                                            ReplayBuffer::Run{7, 7, true}, ReplayBuffer::Run{8, 9},
                                            ReplayBuffer::Run{12, 15}));
  EXPECT_EQ(buffer_.FindMissed(11), nullptr);
  EXPECT_EQ(buffer_.FindMissed(13)->last, 15);
  EXPECT_EQ(buffer_.FindMissed(16), nullptr);
}

TEST_F(ReplayBufferTest, CopiesAreEqualAndHashAlike) {
  Push(2);
  ReplayBuffer copy = buffer_;
  EXPECT_EQ(copy, buffer_);
  EXPECT_EQ(absl::HashOf(copy), absl::HashOf(buffer_));
  copy.BeginSend();
  EXPECT_NE(copy, buffer_);
  EXPECT_NE(absl::HashOf(copy), absl::HashOf(buffer_));
}

// ---- Against a simulated server: two towers of one factor, answers and batches in order on each
// stream, steps that find no room, time out or are rolled back by a crash.

class SimulatedServer {
 public:
  static constexpr int kTowers = 2;
  static constexpr int64_t kWindow = 3;

  struct Answer {
    enum Kind { kOpened, kAck, kHold } kind = kAck;
    ReplayBuffer::Progress progress;
    int64_t step = 0;
  };

  void Open(int tower, ReplayBuffer::Range range) {
    from_[tower] = range.from;
    answers[tower].push_back({.kind = Answer::kOpened, .progress = ProgressOf(tower), .step = 0});
  }

  void Receive(int tower, int64_t step) {
    ASSERT_LT(step, next_ + kWindow);
    if (step < next_) return Acknowledge(tower);
    if (step > open_through_ && open_through_ < room_through) open_through_ = step;
    if (step > open_through_) {
      wanted_ = std::max(wanted_, step);
      answers[tower].push_back({.kind = Answer::kHold, .progress = {}, .step = step});
      return;
    }
    whole_[step].insert(tower);
  }

  // Opens what waits for room.
  void MakeRoom() {
    room_through = next_ + kWindow - 1;
    if (wanted_ <= open_through_) return;
    open_through_ = std::min(wanted_, room_through);
    for (int tower = 0; tower < kTowers; ++tower) Acknowledge(tower);
  }

  // Ends step next if it can: as its record says, or all towers are there, or as PARTIAL.
  bool EndStep(bool timeout) {
    const std::set<int> present = whole_[next_];
    std::set<int> counted;
    if (const auto record = ledger_.find(next_); record != ledger_.end()) {
      if (!std::ranges::includes(present, record->second)) return false;
      counted = record->second;
    } else if (present.size() == kTowers || (timeout && !present.empty())) {
      counted = present;
      if (counted.size() < kTowers) ledger_[next_] = counted;
    } else {
      return false;
    }
    counted_[next_] = counted;
    whole_.erase(next_++);
    open_through_ = std::max(open_through_, next_ - 1);
    for (int tower = 0; tower < kTowers; ++tower) Acknowledge(tower);
    return true;
  }

  void Save() {
    durable_ = next_ - 1;
    for (int tower = 0; tower < kTowers; ++tower) Acknowledge(tower);
  }

  void Crash() {
    ++epoch_;
    next_ = durable_ + 1;
    open_through_ = durable_;
    wanted_ = 0;
    whole_.clear();
    counted_.erase(counted_.upper_bound(durable_), counted_.end());
  }

  int64_t next() const { return next_; }
  int64_t durable() const { return durable_; }
  // By ended step; what a crash took back is not there.
  const std::map<int64_t, std::set<int>>& counted() const { return counted_; }

  std::deque<Answer> answers[kTowers];
  int64_t room_through = 0;  // steps above it find no room

 private:
  void Acknowledge(int tower) {
    answers[tower].push_back({.kind = Answer::kAck, .progress = ProgressOf(tower), .step = 0});
  }
  ReplayBuffer::Progress ProgressOf(int tower) const {
    ReplayBuffer::Progress progress = {.incarnation = 1,
                                       .epoch = epoch_,
                                       .next = next_,
                                       .durable = durable_,
                                       .open_through = open_through_,
                                       .window = kWindow,
                                       .first = next_,
                                       .missed = {}};
    for (const auto& [step, counted] : counted_) {
      if (step >= from_[tower] && !counted.contains(tower)) {
        progress.missed.push_back({.first = step, .last = step});
      }
    }
    return progress;
  }

  uint64_t epoch_ = 1;
  int64_t next_ = 1;
  int64_t durable_ = 0;
  int64_t open_through_ = 0;
  int64_t wanted_ = 0;  // the highest step that was put on hold
  int64_t from_[kTowers] = {};
  std::map<int64_t, std::set<int>> whole_;    // of steps from next on
  std::map<int64_t, std::set<int>> ledger_;   // survives a crash
  std::map<int64_t, std::set<int>> counted_;  // of steps below next
};

class SimulatedClient {
 public:
  SimulatedClient(SimulatedServer& server, int tower) : server_(server), tower_(tower) {}

  void Connect() {
    buffer.OnCut();
    on_the_wire_.clear();
    server_.answers[tower_].clear();
    server_.Open(tower_, buffer.range());
  }
  void Write() {
    if (buffer.next_step_is_late()) return buffer.SkipStep();
    if (!buffer.has_room()) return;
    written.insert(buffer.next_step());
    buffer.Push(1, nullptr);
  }
  void Send() {
    const ReplayBuffer::Kept* batch = buffer.NextToSend();
    if (batch == nullptr) return;
    on_the_wire_.push_back(batch->step);
    buffer.BeginSend();
  }
  void Deliver() {
    if (on_the_wire_.empty()) return;
    server_.Receive(tower_, on_the_wire_.front());
    on_the_wire_.pop_front();
  }
  void Listen() {
    auto& answers = server_.answers[tower_];
    if (answers.empty()) return;
    const SimulatedServer::Answer answer = answers.front();
    answers.pop_front();
    if (answer.kind == SimulatedServer::Answer::kOpened) {
      ASSERT_TRUE(buffer.OnOpened(answer.progress));
    } else if (answer.kind == SimulatedServer::Answer::kAck) {
      buffer.OnAck(answer.progress);
    } else {
      buffer.OnHold(answer.step);
    }
  }
  // What is not kept any more is on disk, or absent for good.
  void CheckFreed() const {
    std::set<int64_t> freed = written;
    for (const ReplayBuffer::Kept& batch : buffer.kept()) freed.erase(batch.step);
    for (const int64_t step : freed) {
      if (buffer.FindMissed(step) == nullptr) {
        ASSERT_LE(step, server_.durable()) << "tower " << tower_;
      }
      const auto ended = server_.counted().find(step);
      if (ended == server_.counted().end()) continue;
      ASSERT_EQ(ended->second.contains(tower_), buffer.FindMissed(step) == nullptr);
    }
  }

  ReplayBuffer buffer;
  std::set<int64_t> written;

 private:
  SimulatedServer& server_;
  const int tower_;
  std::deque<int64_t> on_the_wire_;
};

TEST(ReplayBufferSimulationTest, NothingIsLostOrFreedEarlyAndEveryStepCanEnd) {
  for (int seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    SimulatedServer server;
    SimulatedClient clients[] = {{server, 0}, {server, 1}};
    for (SimulatedClient& client : clients) client.Connect();
    for (int action = 0; action < 400; ++action) {
      SimulatedClient& client = clients[random() % 2];
      const int choice = random() % 64;
      if (choice == 0) {
        server.Crash();
        for (SimulatedClient& each : clients) each.Connect();
      } else if (choice == 1) {
        client.Connect();
      } else if (choice < 4) {
        server.EndStep(/*timeout=*/true);
      } else if (choice < 7) {
        server.Save();
      } else if (choice < 11) {
        server.MakeRoom();
      } else if (choice < 20) {
        client.Write();
      } else if (choice < 34) {
        client.Send();
      } else if (choice < 48) {
        client.Deliver();
      } else if (choice < 60) {
        client.Listen();
      } else {
        server.EndStep(/*timeout=*/false);
      }
      for (const SimulatedClient& each : clients) each.CheckFreed();
      if (testing::Test::HasFatalFailure()) return;
    }
    // Left in peace, it comes to an end: every step that was written ends, and all is freed.
    const int64_t last = std::max(clients[0].buffer.next_step(), clients[1].buffer.next_step());
    for (int round = 0; round < 400 && server.next() < last; ++round) {
      server.MakeRoom();
      for (SimulatedClient& client : clients) {
        if (client.buffer.next_step() < last) client.Write();
        for (int i = 0; i < 20; ++i) {
          client.Send();
          client.Deliver();
          client.Listen();
        }
      }
      server.EndStep(/*timeout=*/false);
    }
    EXPECT_EQ(server.next(), last);
    server.Save();
    for (SimulatedClient& client : clients) {
      while (!server.answers[&client - clients].empty()) client.Listen();
      client.CheckFreed();
      EXPECT_TRUE(client.buffer.kept().empty());
      EXPECT_EQ(client.buffer.bytes(), 0);
    }
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace fisherd
