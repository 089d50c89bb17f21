#include "client/cpp/replay_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_THAT(Send(), ElementsAre(6, 7)) << "7 asks for room";
}

TEST_F(ReplayBufferTest, WhileRoomIsShortOneBatchAtATimeAsksForIt) {
  Push(4);
  Send();
  for (int64_t step = 5; step <= 8; ++step) buffer_.OnHold(step);
  EXPECT_THAT(Send(), IsEmpty());
  AckOpen(5, 5);
  EXPECT_THAT(Send(), ElementsAre(5, 6)) << "the holds after the first said nothing of their own";
  buffer_.OnHold(6);
  EXPECT_THAT(Send(), IsEmpty());
  AckOpen(6, 6);
  EXPECT_THAT(Send(), ElementsAre(6, 7));
  AckOpen(7, 7);
  EXPECT_THAT(Send(), ElementsAre(8));
  Push(3);  // 9 to 11
  EXPECT_THAT(Send(), IsEmpty());
  AckOpen(7, 10);
  EXPECT_THAT(Send(), ElementsAre(9, 10)) << "the whole window is open";
  AckOpen(8, 10);
  EXPECT_THAT(Send(), ElementsAre(11)) << "as before the hold";
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

}  // namespace
}  // namespace fisherd
