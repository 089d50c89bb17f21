#include "server/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/server/session_harness.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

void ExpectMalformed(const absl::Status& status, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(core::ReasonOf(status), core::reason::kMalformedFrame);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST_F(SessionTest, OneTrainersBatchCommits) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  const v1::Progress opened = trainer->Open("mlp/0");
  EXPECT_EQ(opened.factor(), "mlp/0");
  EXPECT_EQ(opened.tower(), 0);
  EXPECT_EQ(opened.incarnation(), 1000);
  EXPECT_EQ(opened.epoch(), 77);
  EXPECT_EQ(opened.towers(), 1);
  EXPECT_EQ(opened.next(), 1);
  EXPECT_EQ(opened.durable(), 0);
  EXPECT_EQ(opened.open_through(), 0);
  EXPECT_EQ(opened.first(), 1);
  EXPECT_EQ(opened.window(), 4);

  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  const v1::Progress ack = trainer->AwaitNext(2);
  EXPECT_EQ(ack.factor(), "mlp/0");
  EXPECT_EQ(ack.incarnation(), 1000);
  EXPECT_EQ(ack.next(), 2);
  EXPECT_EQ(ack.durable(), 1);
  EXPECT_EQ(ack.missed_size(), 0);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

TEST_F(SessionTest, MessagesMayBeCutAtEveryByte) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  int64_t step = 0;
  const auto next_batch = [&] {
    v1::UpdateRequest header = Header("mlp/0", ++step);
    header.mutable_header()->set_decay(0);  // so that each step's result is its batch's alone
    return BatchMessage(header, golden_batch_);
  };
  const auto expect_committed = [&](const std::string& how) {
    trainer->AwaitNext(step + 1);
    EXPECT_EQ(Elements(ReadAfter(*factor, step)), golden_covariance_) << how;
  };
  for (size_t piece_bytes = 1; piece_bytes <= 9; ++piece_bytes) {
    ASSERT_TRUE(trainer->Send(next_batch().SerializeAsString(), piece_bytes).ok());
    expect_committed("pieces of " + std::to_string(piece_bytes));
  }
  for (size_t cut = 0;; ++cut) {
    const std::string bytes = next_batch().SerializeAsString();
    const std::string_view all = bytes;
    if (cut > all.size()) break;
    const std::string_view pieces[] = {all.substr(0, cut), all.substr(cut)};
    ASSERT_TRUE(trainer->session().Receive(pieces).ok());
    expect_committed("cut at " + std::to_string(cut));
  }
}

TEST_F(SessionTest, HeaderRowsAndEndMayTravelApart) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(Header("mlp/0", 1)).ok());
  v1::UpdateRequest rows;
  SetRows(rows, 0, 1, BytesOf({1, 2, 1, -1}));
  ASSERT_TRUE(trainer->Send(rows).ok());
  SetRows(rows, 1, 1, BytesOf({3, 4, 2, 0.5}));
  rows.mutable_end()->set_rows(2);
  ASSERT_TRUE(trainer->Send(rows).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);

  v1::UpdateRequest start = Header("mlp/0", 2);
  start.mutable_header()->set_decay(0);
  SetRows(start, 0, 2, BytesOf(golden_batch_));
  ASSERT_TRUE(trainer->Send(start).ok());
  v1::UpdateRequest end;
  end.mutable_end()->set_rows(2);
  ASSERT_TRUE(trainer->Send(end).ok());
  EXPECT_EQ(trainer->AwaitNext(3).next(), 3);
  EXPECT_EQ(Elements(ReadAfter(*factor, 2)), golden_covariance_);
}

TEST_F(SessionTest, WhatIsNotTheGrammarEndsTheStream) {
  auto factor = Create("mlp/0", Golden());
  v1::UpdateRequest rows;
  SetRows(rows, 0, 2, BytesOf(golden_batch_));
  v1::UpdateRequest end;
  end.mutable_end()->set_rows(2);
  v1::UpdateRequest open_and_header = Header("mlp/0", 1);
  *open_and_header.mutable_open() = OpenMessage("mlp/0").open();
  v1::UpdateRequest hello_and_open = HelloMessage(1);
  *hello_and_open.mutable_open() = OpenMessage("mlp/0").open();
  v1::UpdateRequest short_id = HelloMessage(1);
  short_id.mutable_hello()->set_client_id("short");
  const v1::UpdateRequest nothing;
  const v1::UpdateRequest open = OpenMessage("mlp/0");
  const v1::UpdateRequest hello = HelloMessage(1);
  const v1::UpdateRequest header = Header("mlp/0", 1);
  const struct {
    std::vector<v1::UpdateRequest> before;
    v1::UpdateRequest message;
    std::string error;
  } cases[] = {
      {{}, nothing, "a message with nothing; expected hello alone, first on the stream"},
      {{}, open, "a message with open; expected hello alone, first on the stream"},
      {{}, GoldenBatch("mlp/0", 1), "a message with header, rows, end; expected hello alone"},
      {{}, hello_and_open, "a message with hello, open; expected hello alone"},
      {{}, short_id, "hello.client_id is 5 bytes; expected 16 random ones"},
      {{hello}, hello, "a message with hello; expected open or want_durable alone, or a header"},
      {{hello}, nothing, "a message with nothing; expected open or want_durable alone"},
      {{hello}, rows, "a message with rows; expected open or want_durable alone"},
      {{hello}, end, "a message with end; expected open or want_durable alone"},
      {{hello, open},
       open_and_header,
       "a message with open, header; expected open or want_durable alone"},
      {{hello, open, header},
       header,
       "a message with header; expected rows or end of the batch begun: factor \"mlp/0\", tower "
       "0, step 1"},
      {{hello, open, header}, open, "a message with open; expected rows or end"},
      {{hello, open, header}, hello, "a message with hello; expected rows or end"},
      {{hello, open, header}, nothing, "a message with nothing; expected rows or end"},
      {{hello, open, header, rows, end},
       end,
       "a message with end; expected open or want_durable alone"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.error);
    Trainer trainer(*registry_, table_);
    for (const auto& message : c.before) ASSERT_TRUE(trainer.Send(message).ok());
    ExpectMalformed(trainer.Send(c.message), c.error);
  }
  // Only the last of them had sent a whole batch.
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  EXPECT_EQ(factor->Describe().next, 2);
}

TEST_F(SessionTest, BytesThatAreNoMessageEndTheStream) {
  auto trainer = Join(1);
  ExpectMalformed(trainer->Send("\x22\x05zz"), "byte 2 of the message's 4");
}

TEST_F(SessionTest, OpensAreRefused) {
  Create("mlp/0", Golden(2));
  auto other = Join(2);
  other->Open("mlp/0", 1);
  auto trainer = Join(1);
  v1::UpdateRequest through = OpenMessage("mlp/0");
  through.mutable_open()->set_through(-5);
  const struct {
    v1::UpdateRequest message;
    grpc::StatusCode code;
    std::string_view reason;
    std::string message_part;
    std::string field;
  } cases[] = {
      {OpenMessage("mlp/1"), grpc::NOT_FOUND, core::reason::kFactorNotFound, "create it first", ""},
      {OpenMessage("a//b"), grpc::INVALID_ARGUMENT, core::reason::kBadName, "empty level",
       "factor"},
      {OpenMessage("mlp/0", 2), grpc::OUT_OF_RANGE, core::reason::kOutOfRange,
       "tower is 2; the factor has towers 0 to 1", "tower"},
      {OpenMessage("mlp/0", -1), grpc::OUT_OF_RANGE, core::reason::kOutOfRange, "tower is -1",
       "tower"},
      {OpenMessage("mlp/0", 0, -1), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "from is -1; expected a step, or 0", "from"},
      {through, grpc::INVALID_ARGUMENT, core::reason::kBadArgument, "through is -5", "through"},
      {OpenMessage("mlp/0", 1), grpc::FAILED_PRECONDITION, core::reason::kTowerClaimed,
       "another client's live stream", "tower"},
  };
  for (const auto& c : cases) {
    ASSERT_TRUE(trainer->Send(c.message).ok());
    const v1::Refused refused = trainer->Refusal();
    EXPECT_EQ(refused.factor(), c.message.open().factor());
    EXPECT_EQ(refused.tower(), c.message.open().tower());
    EXPECT_EQ(refused.step(), 0);
    ExpectRefusal(refused, c.code, c.reason, c.message_part, c.field);
    EXPECT_TRUE(trainer->IsQuiet());
  }
  const auto towers = (*registry_->Find("mlp/0"))->Describe().towers;
  EXPECT_FALSE(towers[0].claimed);
  EXPECT_TRUE(towers[1].claimed);
  trainer->Open("mlp/0", 0);
}

// Each case spoils a good batch; it is refused, nothing has changed, and the good one passes.
TEST_F(SessionTest, BatchesAreRefused) {
  using Spoil = std::function<void(v1::UpdateRequest&)>;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto header = [](auto change) -> Spoil {
    return [=](v1::UpdateRequest& message) { change(*message.mutable_header()); };
  };
  const auto elements = [](const Floats& values) -> Spoil {
    return [=](v1::UpdateRequest& message) { SetRows(message, 0, 2, BytesOf(values)); };
  };
  const struct {
    Spoil spoil;
    grpc::StatusCode code;
    std::string_view reason;
    std::string message;
    std::string field;
  } cases[] = {
      {header([](auto& h) { h.set_factor("mlp/9"); }), grpc::NOT_FOUND,
       core::reason::kFactorNotFound, "create it first", ""},
      {header([](auto& h) { h.set_factor("a/../b"); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadName, "'..'", "factor"},
      {header([](auto& h) { h.set_tower(1); }), grpc::OUT_OF_RANGE, core::reason::kOutOfRange,
       "tower is 1; the factor has towers 0 to 0", "tower"},
      {header([](auto& h) { h.set_factor("unopened"); }), grpc::FAILED_PRECONDITION,
       core::reason::kTowerNotOpen, "open it first", "tower"},
      {header([](auto& h) { h.set_incarnation(5); }), grpc::FAILED_PRECONDITION,
       core::reason::kOldIncarnation, "incarnation 5", "incarnation"},
      {header([](auto& h) { h.set_step(0); }), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "step is 0", "step"},
      {header([](auto& h) { h.set_step(std::numeric_limits<int64_t>::min()); }),
       grpc::INVALID_ARGUMENT, core::reason::kBadArgument, "steps count from 1", "step"},
      {header([](auto& h) { h.set_step(5); }), grpc::OUT_OF_RANGE, core::reason::kBeyondWindow,
       "steps 1 to 4 may be sent", "step"},
      {header([](auto& h) { h.set_step(std::numeric_limits<int64_t>::max()); }), grpc::OUT_OF_RANGE,
       core::reason::kBeyondWindow, "steps 1 to 4 may be sent", "step"},
      {header([](auto& h) { h.set_form(v1::BATCH_FORM_CONTRIBUTION); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "expected one, contribution", "tensors"},
      {header([](auto& h) { h.clear_decay(); }), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "decay is missing", "decay"},
      {header([](auto& h) { h.set_decay(1.5); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "decay is 1.5; expected a number from 0 to 1", "decay"},
      {header([](auto& h) { h.set_decay(std::nan("")); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "decay is nan", "decay"},
      {header([](auto& h) { h.set_decay(1); }), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "weight is missing", "weight"},
      {header([](auto& h) { h.set_weight(0); }), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "weight is 0", "weight"},
      {header([](auto& h) { h.set_gradient_scale(-1); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "gradient_scale is -1", "gradient_scale"},
      {header([](auto& h) { h.set_rows(0); }), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "rows is 0", "rows"},
      {header([](auto& h) { h.set_digest("too short"); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "digest is 9 bytes; expected 16", "digest"},
      {header([](auto& h) { h.mutable_tensors()->RemoveLast(); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "tensors", "tensors"},
      {header([](auto& h) { h.mutable_tensors(0)->set_shape(1, 3); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "expected inputs", "tensors"},
      {header([](auto& h) { h.mutable_tensors(1)->set_source(1); }), grpc::OUT_OF_RANGE,
       core::reason::kOutOfRange, "source is 1", "source"},
      {header([](auto& h) { h.mutable_tensors(1)->clear_dtype(); }), grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "tensors[1].dtype is absent", "tensors[1].dtype"},
      {header([](auto& h) {
         h.set_rows(1 << 20);
         for (auto& tensor : *h.mutable_tensors()) tensor.set_shape(0, 1 << 20);
       }),
       grpc::RESOURCE_EXHAUSTED, core::reason::kBatchBudget, "can never fit", "rows"},
      {elements({1, nan, 3, 4, 1, -1, 2, 0.5}), grpc::INVALID_ARGUMENT,
       core::reason::kNonFiniteInput, "inputs", "inputs"},
      {elements({1, 2, 3, 4, 1, -1, 1e30, 0.5}), grpc::INVALID_ARGUMENT,
       core::reason::kNonFiniteInput, "outputs_grads", "outputs_grads"},
      {elements({1, 2, 3}), grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "data has 12 bytes; expected 32", "data"},
      {[](auto& m) { m.mutable_rows()->set_crc32c(1); }, grpc::INVALID_ARGUMENT,
       core::reason::kCrcMismatch, "crc32c 0x00000001", "crc32c"},
      {[](auto& m) { m.mutable_rows()->set_first_row(1); }, grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "first_row is 1; expected 0", "first_row"},
      {[](auto& m) { m.mutable_rows()->set_row_count(3); }, grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "row_count is 3", "row_count"},
      {[](auto& m) { m.clear_rows(); }, grpc::INVALID_ARGUMENT, core::reason::kBadArgument,
       "ends after 0 rows", "rows"},
      {[](auto& m) { m.mutable_end()->set_rows(1); }, grpc::INVALID_ARGUMENT,
       core::reason::kBadArgument, "its end says 1", "rows"},
  };
  Create("unopened", Golden());
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  for (const auto& c : cases) {
    SCOPED_TRACE(c.message);
    v1::UpdateRequest message = GoldenBatch("mlp/0", 1);
    c.spoil(message);
    ASSERT_TRUE(trainer->Send(message).ok());
    const v1::Refused refused = trainer->Refusal();
    EXPECT_EQ(refused.factor(), message.header().factor());
    EXPECT_EQ(refused.tower(), message.header().tower());
    EXPECT_EQ(refused.step(), message.header().step());
    ExpectRefusal(refused, c.code, c.reason, c.message, c.field);
    EXPECT_TRUE(trainer->IsQuiet());
    const core::FactorInfo info = factor->Describe();
    EXPECT_EQ(info.next, 1);
    EXPECT_EQ(info.held_batches, 0);
    EXPECT_EQ(Elements(Read(*factor)), Floats(6));
  }
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

TEST_F(SessionTest, TheRestOfARefusedBatchIsDiscarded) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(Header("mlp/0", 7)).ok());  // beyond the window
  EXPECT_EQ(trainer->Refusal().step(), 7);
  v1::UpdateRequest rows;
  SetRows(rows, 0, 99, "not looked at");
  rows.mutable_rows()->set_crc32c(1);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(trainer->Send(rows).ok());
  v1::UpdateRequest end;
  end.mutable_end()->set_rows(-1);
  ASSERT_TRUE(trainer->Send(end).ok());
  EXPECT_TRUE(trainer->IsQuiet());
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
}

TEST_F(SessionTest, ABatchRefusedAmongItsRowsIsRefusedOnce) {
  Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(Header("mlp/0", 1)).ok());
  v1::UpdateRequest rows;
  SetRows(rows, 0, 1, BytesOf({1, std::numeric_limits<float>::infinity(), 1, 1}));
  ASSERT_TRUE(trainer->Send(rows).ok());
  ASSERT_TRUE(trainer->Send(rows).ok());
  v1::UpdateRequest end;
  end.mutable_end()->set_rows(2);
  ASSERT_TRUE(trainer->Send(end).ok());
  ExpectRefusal(trainer->Refusal(), grpc::INVALID_ARGUMENT, core::reason::kNonFiniteInput, "step 1",
                "inputs");
  EXPECT_TRUE(trainer->IsQuiet());
}

TEST_F(SessionTest, StepsFollowEachOther) {
  Create("mlp/0", Golden(2));
  auto trainer = Join(1);
  trainer->Open("mlp/0", 0);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 3)).ok());
  ExpectRefusal(trainer->Refusal(), grpc::OUT_OF_RANGE, core::reason::kStepOutOfOrder,
                "the tower's batch of step 2 is not here; expected step 2, or an earlier one again",
                "step");
  // A refused one is not its successor's predecessor.
  v1::UpdateRequest spoilt = GoldenBatch("mlp/0", 2);
  spoilt.mutable_rows()->set_crc32c(1);
  ASSERT_TRUE(trainer->Send(spoilt).ok());
  EXPECT_EQ(trainer->Refusal().step(), 2);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 3)).ok());
  EXPECT_EQ(InfoOf(trainer->Refusal().status()).reason(), core::reason::kStepOutOfOrder);
  // Earlier ones, and again, and on from the highest.
  for (const int step : {1, 2, 3, 4}) {
    ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", step)).ok());
  }
  EXPECT_EQ((*registry_->Find("mlp/0"))->Describe().towers[0].received_through, 4);
}

TEST_F(SessionTest, ADuplicateIsDiscardedAndAcknowledged) {
  auto factor = Create("mlp/0", Golden());
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  trainer->AwaitNext(2);
  ReadAfter(*factor, 1).IgnoreError();
  const uint64_t before = factor->Describe().version.step;
  v1::UpdateRequest again = GoldenBatch("mlp/0", 1);
  again.mutable_rows()->set_data("not looked at");
  ASSERT_TRUE(trainer->Send(again).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  EXPECT_EQ(factor->Describe().version.step, before);
  EXPECT_EQ(Elements(Read(*factor)), golden_covariance_);
}

TEST_F(SessionTest, AHeldIdentityWithAnotherDigestIsRefused) {
  Create("mlp/0", Golden(2));
  auto trainer = Join(1);
  trainer->Open("mlp/0");
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  v1::UpdateRequest other = GoldenBatch("mlp/0", 1);
  other.mutable_header()->set_digest("another digest..");
  ASSERT_TRUE(trainer->Send(other).ok());
  ExpectRefusal(trainer->Refusal(), grpc::INVALID_ARGUMENT, core::reason::kIdentityReused,
                "another digest", "digest");
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 1)).ok());
  EXPECT_EQ(trainer->AwaitNext(1).next(), 1);  // held, and acknowledged as such
}

TEST_F(SessionTest, TowersMustAgreeOnTheMovingAverage) {
  auto factor = Create("mlp/0", Golden(2));
  auto one = Join(1);
  auto two = Join(2);
  one->Open("mlp/0", 0);
  two->Open("mlp/0", 1);
  ASSERT_TRUE(one->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  v1::UpdateRequest differs = GoldenBatch("mlp/0", 1, 1);
  differs.mutable_header()->set_decay(0.25);
  ASSERT_TRUE(two->Send(differs).ok());
  ExpectRefusal(two->Refusal(), grpc::INVALID_ARGUMENT, core::reason::kStepParametersDiffer,
                "decay is 0.25", "decay");
  EXPECT_TRUE(one->IsQuiet());
  ASSERT_TRUE(two->Send(GoldenBatch("mlp/0", 1, 1)).ok());
  EXPECT_EQ(one->AwaitNext(2).next(), 2);
  EXPECT_EQ(two->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

}  // namespace
}  // namespace fisherd::server
