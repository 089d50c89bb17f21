#include "server/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <thread>

#include "server/status.h"
#include "tests/server/session_harness.h"

namespace fisherd::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectMalformed(const absl::Status& status, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(core::ReasonOf(status), core::reason::kMalformedFrame);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

void ExpectRefusal(const v1::Refused& refused, grpc::StatusCode code, std::string_view reason,
                   const std::string& message, const std::string& field) {
  EXPECT_EQ(refused.status().code(), code) << refused.DebugString();
  EXPECT_THAT(refused.status().message(), HasSubstr(message));
  EXPECT_THAT(refused.status().message(),
              AllOf(HasSubstr("factor \"" + refused.factor() + "\""),
                    HasSubstr("tower " + std::to_string(refused.tower()))));
  const google::rpc::ErrorInfo info = InfoOf(refused.status());
  EXPECT_EQ(info.reason(), reason);
  EXPECT_EQ(info.domain(), kErrorDomain);
  const auto& metadata = info.metadata();
  EXPECT_EQ(metadata.at("factor"), refused.factor());
  EXPECT_EQ(metadata.at("tower"), std::to_string(refused.tower()));
  EXPECT_EQ(metadata.contains("step") ? metadata.at("step") : "0", std::to_string(refused.step()));
  EXPECT_EQ(metadata.contains("field") ? metadata.at("field") : "", field);
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
  EXPECT_EQ(opened.open_through(), 4);
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
      {{hello}, hello, "a message with hello; expected open alone, or a header, to which rows and"},
      {{hello}, nothing, "a message with nothing; expected open alone"},
      {{hello}, rows, "a message with rows; expected open alone"},
      {{hello}, end, "a message with end; expected open alone"},
      {{hello, open}, open_and_header, "a message with open, header; expected open alone"},
      {{hello, open, header},
       header,
       "a message with header; expected rows or end of the batch begun: factor \"mlp/0\", tower "
       "0, step 1"},
      {{hello, open, header}, open, "a message with open; expected rows or end"},
      {{hello, open, header}, hello, "a message with hello; expected rows or end"},
      {{hello, open, header}, nothing, "a message with nothing; expected rows or end"},
      {{hello, open, header, rows, end}, end, "a message with end; expected open alone"},
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
      {OpenMessage("mlp/0", 0, 2), grpc::OUT_OF_RANGE, core::reason::kOutOfRange, "from is 2",
       "from"},
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
      {header([](auto& h) { h.set_form(v1::BATCH_FORM_CONTRIBUTION); }), grpc::UNIMPLEMENTED,
       core::reason::kUnsupported, "CONTRIBUTION", "form"},
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
    EXPECT_EQ(info.held_bytes, 0);
    EXPECT_EQ(registry_->batch_budget().used(), 0);
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
  // The first on the stream is free within the window; then each follows the one before it.
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 2)).ok());
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 4)).ok());
  ExpectRefusal(trainer->Refusal(), grpc::OUT_OF_RANGE, core::reason::kStepOutOfOrder,
                "step is 4, but the tower's last batch on this stream was of step 2; expected "
                "step 3, or an earlier one again",
                "step");
  // A refused one is not its predecessor's successor.
  v1::UpdateRequest spoilt = GoldenBatch("mlp/0", 3);
  spoilt.mutable_rows()->set_crc32c(1);
  ASSERT_TRUE(trainer->Send(spoilt).ok());
  EXPECT_EQ(trainer->Refusal().step(), 3);
  ASSERT_TRUE(trainer->Send(GoldenBatch("mlp/0", 4)).ok());
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
  EXPECT_EQ(factor->Describe().held_bytes, 0);
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
  ASSERT_TRUE(trainer->Send(OpenMessage("mlp/0", 0, 9)).ok());
  EXPECT_EQ(InfoOf(trainer->Refusal().status()).reason(), core::reason::kOutOfRange);
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
