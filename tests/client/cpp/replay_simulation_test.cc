// The replay buffer against a simulated server: two towers of one factor, answers and batches in
// order on each stream, steps that find no room, time out or are rolled back by a crash.

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "client/cpp/replay_buffer.h"

namespace fisherd {
namespace {

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
