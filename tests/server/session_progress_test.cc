// What a session tells when others, or time, have moved a factor on; and streams beside each other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "server/session.h"
#include "tests/server/session_harness.h"

namespace fisherd::server {
namespace {

TEST_F(SessionTest, AFailedStepIsToldOnce) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(BatchMessage(Header("mlp/0", 1), {1e15, 1, 1, 1, 1e15, 1, 1, 1})).ok());
  const v1::Progress failed = trainer->AwaitNext(2);
  ASSERT_EQ(failed.missed_size(), 1);
  EXPECT_EQ(failed.missed(0).first_step(), 1);
  EXPECT_EQ(failed.missed(0).last_step(), 1);
  EXPECT_EQ(failed.missed(0).outcome(), v1::STEP_OUTCOME_FAILED);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 2)).ok());
  EXPECT_EQ(trainer->AwaitNext(3).missed_size(), 0);
  EXPECT_EQ(Elements(ReadAfter(*factor, 2)), golden_covariance_);

  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  ExpectRefusal(trainer->Refusal(), grpc::FAILED_PRECONDITION, core::reason::kStepFailed,
                "has ended FAILED", "");
  // A new stream is told again, from its `from` on.
  auto later = Join(1, 2);
  ASSERT_TRUE(later->Send(OpenMessage("mlp/0", 0, 1)).ok());
  EXPECT_EQ(later->Answer().opened().progress().missed_size(), 1);
  ASSERT_TRUE(later->Send(OpenMessage("mlp/0", 0, 2)).ok());
  EXPECT_EQ(later->Answer().opened().progress().missed_size(), 0);
}

TEST_F(SessionTest, AcknowledgementsCoalesce) {
  auto one = Create("mlp/0", Golden());
  auto two = Create("mlp/1", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  trainer->Open("mlp/1");
  const int wakes = trainer->wakes();
  for (int i = 0; i < 5000; ++i) {
    trainer->session().OnProgress(one);
    trainer->session().OnProgress(two);
  }
  EXPECT_EQ(trainer->wakes(), wakes + 2);
  EXPECT_TRUE(trainer->session().WantsMessage());
  EXPECT_EQ(trainer->Answer().ack().progress().factor(), "mlp/0");
  EXPECT_EQ(trainer->Answer().ack().progress().factor(), "mlp/1");
  EXPECT_TRUE(trainer->IsQuiet());
}

TEST_F(SessionTest, AnAcknowledgementTellsTheProgressOfWhenItIsTaken) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  for (const int step : {1, 2, 3}) {
    ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", step)).ok());
  }
  ASSERT_TRUE(ReadAfter(*factor, 3).ok());
  const v1::UpdateResponse answer = trainer->Answer();
  EXPECT_EQ(answer.ack().progress().next(), 4);
}

TEST_F(SessionTest, NoMessageIsWantedWhileTooManyAnswersWait) {
  Create("mlp/0", Golden());
  auto trainer = Join(1);
  for (size_t i = 0; i < Session::kMaxWaitingAnswers; ++i) {
    EXPECT_TRUE(trainer->session().WantsMessage());
    ASSERT_TRUE(trainer->Send(OpenMessage("nothing there")).ok());
  }
  EXPECT_FALSE(trainer->session().WantsMessage());
  trainer->Refusal();
  EXPECT_TRUE(trainer->session().WantsMessage());
}

TEST_F(SessionTest, AnAbsurdNameIsCutInItsRefusal) {
  auto trainer = Join(1);
  std::string name;
  for (int i = 0; i < 50'000; ++i) name += "λ";
  ASSERT_TRUE(trainer->Send(OpenMessage(name)).ok());
  const v1::Refused refused = trainer->Refusal();
  EXPECT_EQ(refused.factor(), name.substr(0, 256));
  EXPECT_LT(refused.ByteSizeLong(), 4096);
  EXPECT_EQ(InfoOf(refused.status()).reason(), core::reason::kBadName);
}

TEST_F(SessionTest, AnUnfinishedBatchGoesWithItsStream) {
  auto factor = Create("mlp/0", Golden());
  auto first = Join(1);
  first->Open("mlp/0");
  ASSERT_TRUE(first->Send(Header("mlp/0", 1)).ok());
  EXPECT_GT(factor->Describe().held_bytes, 0);
  first->session().Close(absl::OkStatus());
  EXPECT_EQ(factor->Describe().held_batches, 0);
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
  EXPECT_TRUE(first->Send(GoldenBatch("mlp/0", 1)).ok());  // says what Close was given
  EXPECT_EQ(factor->Describe().held_batches, 0);

  auto second = Join(2);  // no longer claimed, so another client may
  second->Open("mlp/0");
  ASSERT_TRUE(second->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(second->AwaitNext(2).next(), 2);
}

TEST_F(SessionTest, HeldBatchesOutliveTheirStream) {
  auto factor = Create("mlp/0", Golden(2));
  auto first = Join(1);
  first->Open("mlp/0", 0);
  ASSERT_TRUE(first->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  first->session().Close(absl::OkStatus());
  auto two = Join(2);
  two->Open("mlp/0", 1);
  ASSERT_TRUE(two->Send(GoldenBatch("mlp/0", 1, 1)).ok());
  EXPECT_EQ(two->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

TEST_F(SessionTest, ATakenTowerIsToldAndForgotten) {
  auto factor = Create("mlp/0", Golden(2));
  auto one = Join(1);
  one->Open("mlp/0", 0);
  one->Open("mlp/0", 1);
  ASSERT_TRUE(one->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  auto two = Join(2);
  ASSERT_TRUE(two->Send(OpenMessage("mlp/0", 0, 0, true)).ok());
  EXPECT_TRUE(two->Answer().has_opened());
  EXPECT_EQ(factor->Describe().held_batches, 0);

  const v1::Refused lost = one->Refusal();
  EXPECT_EQ(lost.step(), 0);
  EXPECT_EQ(lost.tower(), 0);
  ExpectRefusal(lost, grpc::FAILED_PRECONDITION, core::reason::kTowerClaimed,
                "another client has taken over the tower", "");
  EXPECT_EQ(one->Answer().ack().progress().tower(), 1);  // the other one is its own still
  EXPECT_TRUE(one->IsQuiet());
  ASSERT_TRUE(one->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  ExpectRefusal(one->Refusal(), grpc::FAILED_PRECONDITION, core::reason::kTowerNotOpen,
                "open it first", "tower");

  ASSERT_TRUE(two->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  ASSERT_TRUE(one->Send(GoldenBatch("mlp/0", 1, 1)).ok());
  EXPECT_EQ(two->AwaitNext(2).next(), 2);
  EXPECT_EQ(one->AwaitNext(2).next(), 2);
}

class HoldTest : public SessionTest {
 protected:
  // A golden batch holds 256 bytes.
  HoldTest() : SessionTest({.state_budget = 1 << 20, .batch_budget = 600}) {}
};

TEST_F(HoldTest, ABatchWithoutRoomIsHeldAndItsTowerToldWhenThereIsSome) {
  Create("a", Golden(2));
  auto b = Create("b", Golden());
  auto one = Join(1), two = Join(2), three = Join(3);
  one->Open("a", 0);
  two->Open("a", 1);
  three->Open("b");
  ASSERT_TRUE(one->Send(GoldenBatch("a", 1, 0)).ok());
  ASSERT_TRUE(three->Send(GoldenBatch("b", 1)).ok());
  const v1::UpdateResponse held = three->Answer();
  ASSERT_TRUE(held.has_hold()) << held.DebugString();
  EXPECT_EQ(held.hold().factor(), "b");
  EXPECT_EQ(held.hold().tower(), 0);
  EXPECT_EQ(held.hold().step(), 1);
  EXPECT_EQ(three->Answer().ack().progress().open_through(), 0) << "and how it stands";
  // What was on its way behind it is held, too, and is no error.
  ASSERT_TRUE(three->Send(GoldenBatch("b", 2)).ok());
  EXPECT_EQ(three->Answer().hold().step(), 2);
  EXPECT_EQ(three->Answer().ack().progress().open_through(), 0);

  ASSERT_TRUE(two->Send(GoldenBatch("a", 1, 1)).ok());
  EXPECT_GE(three->Answer().ack().progress().open_through(), 1);
  ASSERT_TRUE(three->Send(GoldenBatch("b", 1)).ok());
  three->AwaitNext(2);
  EXPECT_EQ(Elements(ReadAfter(*b, 1)), golden_covariance_);
}

TEST_F(HoldTest, AStepThatABatchOpensIsToldToThoseWhoHold) {
  Create("a", Golden(1));
  auto b = Create("b", Golden(2));
  auto one = Join(1), two = Join(2), three = Join(3);
  one->Open("a", 0);
  two->Open("b", 0);
  three->Open("b", 1);
  backend_.Hold();  // so that there is no room before all that is said here has been taken
  ASSERT_TRUE(one->Send(GoldenBatch("a", 1)).ok());
  backend_.AwaitEntered();
  ASSERT_TRUE(two->Send(GoldenBatch("b", 1, 0)).ok());
  EXPECT_EQ(two->Answer().hold().step(), 1);
  EXPECT_EQ(two->Answer().ack().progress().open_through(), 0);
  // Not by its turn in the queue but by this very batch, if that comes first.
  backend_.Release();
  one->AwaitNext(2);
  while (b->Describe().towers[1].received_through == 0) {
    ASSERT_TRUE(three->Send(GoldenBatch("b", 1, 1)).ok());
  }
  while (two->Answer().ack().progress().open_through() < 1) {
  }
  ASSERT_TRUE(two->Send(GoldenBatch("b", 1, 0)).ok());
  two->AwaitNext(2);
}

TEST_F(HoldTest, ABatchThatMakesRoomIsHeldLater) {
  auto factor = Create("a", Golden(1));
  auto one = Join(1);
  one->Open("a");
  backend_.Hold();  // so that the window fills
  ASSERT_TRUE(one->Send(GoldenBatch("a", 1)).ok());
  backend_.AwaitEntered();
  ASSERT_TRUE(one->Send(Header("a", 2)).ok());  // its rows are to come
  (*registry_->Find("a"))->SetTowers(1, /*now=*/true).IgnoreError();
  v1::UpdateResponse answer = one->Answer();
  ASSERT_TRUE(answer.has_hold()) << answer.DebugString();
  EXPECT_EQ(answer.hold().step(), 2);
  v1::UpdateRequest rest = GoldenBatch("a", 2);
  rest.clear_header();
  ASSERT_TRUE(one->Send(rest).ok()) << "read and discarded";
  EXPECT_EQ(factor->Describe().held_batches, 1);
  backend_.Release();
  one->AwaitNext(2);
  ASSERT_TRUE(one->Send(GoldenBatch("a", 2)).ok());
  one->AwaitNext(3);
}

TEST_F(SessionTest, ABatchUnderWayWhoseTowerIsTakenIsRefused) {
  Create("mlp/0", Golden());
  auto one = Join(1);
  one->Open("mlp/0");
  ASSERT_TRUE(one->Send(Header("mlp/0", 1)).ok());
  auto two = Join(2);
  ASSERT_TRUE(two->Send(OpenMessage("mlp/0", 0, 0, true)).ok());
  v1::UpdateRequest rest = GoldenBatch("mlp/0", 1);
  rest.clear_header();
  ASSERT_TRUE(one->Send(rest).ok());
  const v1::Refused refused = one->Refusal();
  EXPECT_EQ(refused.step(), 1);
  EXPECT_EQ(InfoOf(refused.status()).reason(), core::reason::kTowerClaimed);
  EXPECT_EQ(one->Refusal().step(), 0);
}

TEST_F(SessionTest, AResetIsToldAndOpensAnew) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  trainer->AwaitNext(2);
  ASSERT_TRUE(registry_->Reset("mlp/0").ok());
  const v1::Refused refused = trainer->Refusal();
  EXPECT_EQ(refused.step(), 0);
  ExpectRefusal(refused, grpc::FAILED_PRECONDITION, core::reason::kOldIncarnation,
                "incarnation 1000 has ended by a reset", "");
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(InfoOf(trainer->Refusal().status()).reason(), core::reason::kTowerNotOpen);

  const v1::Progress opened = trainer->Open("mlp/0");
  EXPECT_GT(opened.incarnation(), 1000);
  EXPECT_EQ(opened.next(), 1);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).incarnation(), opened.incarnation());
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

TEST_F(SessionTest, OpeningAnewStandsForTheLossBeforeIt) {
  Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(registry_->Reset("mlp/0").ok());
  EXPECT_EQ(trainer->Open("mlp/0").next(), 1);
  EXPECT_TRUE(trainer->IsQuiet());
}

TEST_F(SessionTest, ADeletionIsTold) {
  Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(registry_->Delete("mlp/0").ok());
  ExpectRefusal(trainer->Refusal(), grpc::FAILED_PRECONDITION, core::reason::kOldIncarnation,
                "the factor has been deleted", "");
  ASSERT_TRUE(trainer->Send(HeaderMessage("mlp/0", 1000, 1, 2)).ok());
  ExpectRefusal(trainer->Refusal(), grpc::NOT_FOUND, core::reason::kFactorNotFound,
                "create it first", "");
}

TEST_F(SessionTest, OpenAgainAndAgainLeavesNothingBehind) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  for (int i = 0; i < 100; ++i) {
    trainer->Open("mlp/0");
    trainer->session().OnProgress(factor);
  }
  EXPECT_TRUE(trainer->Answer().has_ack());
  EXPECT_TRUE(trainer->IsQuiet());
  // One that fails leaves what was open.
  ASSERT_TRUE(trainer->Send(OpenMessage("mlp/0", 0, -9)).ok());
  EXPECT_EQ(InfoOf(trainer->Refusal().status()).reason(), core::reason::kBadArgument);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
}

// Two towers, two sessions, two steps: every order in which their messages can arrive.
TEST_F(SessionTest, EveryArrivalOrderGivesTheSameBits) {
  constexpr int kMessages = 6;  // of each tower: two batches of header, row, row and end
  const Floats rows[2][2] = {{{0.1f, 1.7f, -0.3f, 0.9f}, {2.3f, 0.7f, 1.1f, -1.3f}},
                             {{1e-3f, 31.7f, 0.37f, 5.9f}, {0.33f, 7e3f, -2.1f, 0.77f}}};
  Floats expected;
  int orders = 0;
  for (unsigned order = 0; order < 1u << (2 * kMessages); ++order) {
    if (__builtin_popcount(order) != kMessages) continue;
    const std::string name = "order/" + std::to_string(order);
    auto factor = Create(name, Golden(2));
    std::unique_ptr<Trainer> trainers[] = {Join(1, order + 1), Join(2, order + 1)};
    int sent[2] = {};
    for (const int tower : {0, 1}) trainers[tower]->Open(name, tower);
    for (int i = 0; i < 2 * kMessages; ++i) {
      const int tower = order >> i & 1;
      const int step = 1 + sent[tower] / 3;
      const int part = sent[tower]++ % 3;
      v1::UpdateRequest message;
      if (part == 0) message = Header(name, step, tower);
      if (part > 0) SetRows(message, part - 1, 1, BytesOf(rows[tower][part - 1]));
      if (part == 2) message.mutable_end()->set_rows(2);
      ASSERT_TRUE(trainers[tower]->Send(message).ok());
    }
    const Floats elements = Elements(ReadAfter(*factor, 2));
    if (orders++ == 0) expected = elements;
    ASSERT_EQ(elements, expected) << "order " << order;
    ASSERT_TRUE(registry_->Delete(name).ok());
  }
  EXPECT_EQ(orders, 924);
  EXPECT_NE(expected, Floats(6));
}

// For ThreadSanitizer: streams that come, send, are superseded and end, while the factor is reset.
TEST_F(SessionTest, ManyAtOnce) {
  constexpr int kTowers = 3;
  auto factor = Create("mlp/0", Golden(kTowers));
  std::vector<std::thread> threads;
  for (int tower = 0; tower < kTowers; ++tower) {
    threads.emplace_back([&, tower] {
      for (uint64_t stream = 1; stream <= 40; ++stream) {
        auto trainer = Join(tower, stream);
        std::thread superseding;
        if (stream % 4 == 0) superseding = std::thread([&] { Join(tower, ++stream); });
        // What it is answered depends on the others; that it is answered does not.
        if (trainer->Send(OpenMessage("mlp/0", tower)).ok()) {
          const v1::Progress progress = trainer->Answer().opened().progress();
          for (int64_t step = progress.next(); step < progress.next() + 3; ++step) {
            trainer
                ->Send(BatchMessage(HeaderMessage("mlp/0", progress.incarnation(), step, 2, tower),
                                    golden_batch_))
                .IgnoreError();
            trainer->session().NextAnswer();
          }
        }
        if (superseding.joinable()) superseding.join();
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(registry_->Reset("mlp/0").ok());
  });
  for (std::thread& thread : threads) thread.join();
  for (const core::TowerInfo& tower : factor->Describe().towers) EXPECT_FALSE(tower.claimed);
}

}  // namespace
}  // namespace fisherd::server
