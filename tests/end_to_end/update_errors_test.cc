// SPEC §6, for the update stream: what is wrong with a batch or an open is refused, the stream goes
// on, and nothing has changed; what is not the grammar ends it.

#include <cmath>
#include <functional>
#include <limits>

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;

struct BadBatch {
  const char* what;
  std::function<void(Batch&)> change;
  StatusCode code;
  const char* reason;
  const char* message;
};

class UpdateErrorsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    CreateGolden("f");
    factor_ = Describe("f");
  }

  // All that a refused batch may not change: of its step, only that it is open.
  std::string Standing(const std::string& factor) {
    v1::FactorInfo info = Describe(factor);
    info.clear_open_through();
    info.clear_held_bytes();
    return info.DebugString();
  }

  // Sends a batch of step 2 that is wrong, is refused, and then the right one, which commits.
  void Expect(const BadBatch& bad) {
    SCOPED_TRACE(bad.what);
    Create("f", LayerSpec(2, 2));
    Trainer trainer(stub(), ++client_);
    const int64_t step = trainer.Claim("f").next();
    Batch batch = GoldenBatch(factor_, step);
    bad.change(batch);
    const std::string before = Standing("f");

    trainer.Send(batch, 1);
    const v1::Refused refused = trainer.AwaitRefusal();
    EXPECT_EQ(refused.factor(), batch.header.factor());
    EXPECT_EQ(refused.step(), batch.header.step());
    EXPECT_EQ(refused.tower(), batch.header.tower());
    EXPECT_THAT(refused.status(), IsRpcError(bad.code, bad.reason, bad.message));
    EXPECT_EQ(ErrorInfoOf(refused.status()).metadata().at("factor"), batch.header.factor());
    EXPECT_EQ(Standing("f"), before);

    trainer.Send(GoldenBatch(factor_, step), 1);
    trainer.AwaitNext("f", step + 1);
    EXPECT_TRUE(trainer.Finish().ok());
    EXPECT_EQ(Describe("f").steps_committed(), step);
  }

  v1::FactorInfo factor_;
  int client_ = 0;
};

TEST_P(UpdateErrorsTest, BadElements) {
  const double nan = std::nan("");
  const double huge = 1e30;  // its square is beyond FLOAT32
  const BadBatch cases[] = {
      {"a NaN among the inputs", [&](Batch& b) { b.tensors[0][2] = nan; },
       StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "nan"},
      {"an infinity among the gradients",
       [&](Batch& b) { b.tensors[1][3] = std::numeric_limits<double>::infinity(); },
       StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "inf"},
      {"a square that overflows", [&](Batch& b) { b.tensors[1][0] = huge; },
       StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "1e+30"},
      {"a gradient_scale that makes one", [&](Batch& b) { b.header.set_gradient_scale(huge); },
       StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", ""},
      {"a negative row weight",
       [&](Batch& b) {
         b.Add(v1::TENSOR_ROLE_ROW_WEIGHTS, 0, {1, -1});
       },
       StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "row 1: -1"},
      {"row weights without a sum",
       [&](Batch& b) {
         b.Add(v1::TENSOR_ROLE_ROW_WEIGHTS, 0, {0, 0});
       },
       StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "row"},
  };
  for (const BadBatch& bad : cases) Expect(bad);
}

TEST_P(UpdateErrorsTest, BadShapes) {
  const auto bad = [](const char* what, std::function<void(Batch&)> change, const char* message) {
    return BadBatch{what, std::move(change), StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", message};
  };
  const BadBatch cases[] = {
      bad(
          "no inputs",
          [](Batch& b) {
            b.header.mutable_tensors()->DeleteSubrange(0, 1);
            b.tensors.erase(b.tensors.begin());
          },
          "expected inputs"),
      bad(
          "inputs of another width",
          [](Batch& b) {
            b.header.mutable_tensors(0)->set_shape(1, 3);
            b.tensors[0].resize(6);
          },
          "[2, 3]"),
      bad(
          "a tensor of more rows", [](Batch& b) { b.header.mutable_tensors(1)->set_shape(0, 3); },
          "[3, 2]"),
      bad(
          "a role that is no batch's",
          [](Batch& b) { b.header.mutable_tensors(0)->set_role(v1::TENSOR_ROLE_RESULT); },
          "tensor 0 is result"),
      bad(
          "no type", [](Batch& b) { b.header.mutable_tensors(0)->clear_dtype(); }, "dtype"),
      bad(
          "no rows",
          [](Batch& b) {
            b.header.set_rows(0);
            b.tensors = {{}, {}};
          },
          "rows is 0"),
  };
  for (const BadBatch& c : cases) Expect(c);
}

TEST_P(UpdateErrorsTest, BadParameters) {
  const auto bad = [](const char* what, std::function<void(v1::BatchHeader&)> change,
                      const char* message) {
    return BadBatch{what, [change = std::move(change)](Batch& b) { change(b.header); },
                    StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", message};
  };
  const BadBatch cases[] = {
      bad(
          "no decay", [](auto& h) { h.clear_decay(); }, "decay"),
      bad(
          "a decay below 0", [](auto& h) { h.set_decay(-0.1); }, "decay is -0.1"),
      bad(
          "a decay above 1", [](auto& h) { h.set_decay(1.5); }, "decay is 1.5"),
      bad(
          "a decay that is no number", [](auto& h) { h.set_decay(std::nan("")); }, "decay is nan"),
      bad(
          "decay 1 without a weight", [](auto& h) { h.set_decay(1); }, "weight"),
      bad(
          "a weight of 0", [](auto& h) { h.set_weight(0); }, "weight is 0"),
      bad(
          "a gradient_scale of 0", [](auto& h) { h.set_gradient_scale(0); }, "gradient_scale is 0"),
      bad(
          "a digest of 15 bytes", [](auto& h) { h.set_digest(std::string(15, 'x')); }, "digest"),
      bad(
          "a step of 0", [](auto& h) { h.set_step(0); }, "step"),
  };
  for (const BadBatch& c : cases) Expect(c);
}

TEST_P(UpdateErrorsTest, WrongPlaces) {
  const BadBatch cases[] = {
      {"a source that it has not", [](Batch& b) { b.header.mutable_tensors(1)->set_source(1); },
       StatusCode::OUT_OF_RANGE, "OUT_OF_RANGE", "source"},
      {"a tower that it has not", [](Batch& b) { b.header.set_tower(1); }, StatusCode::OUT_OF_RANGE,
       "OUT_OF_RANGE", "towers 0 to 0"},
      {"a factor that is not there", [](Batch& b) { b.header.set_factor("missing"); },
       StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "no factor \"missing\""},
      {"a step beyond the window", [](Batch& b) { b.header.set_step(b.header.step() + 4); },
       StatusCode::OUT_OF_RANGE, "BEYOND_WINDOW", "window"},
      {"an incarnation that has ended", [](Batch& b) { b.header.set_incarnation(1); },
       StatusCode::FAILED_PRECONDITION, "OLD_INCARNATION", "incarnation 1"},
      {"rows as a contribution", [](Batch& b) { b.header.set_form(v1::BATCH_FORM_CONTRIBUTION); },
       StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "expected one, contribution"},
  };
  for (const BadBatch& c : cases) Expect(c);
}

// One message at a time goes wrong between the header and the end.
TEST_P(UpdateErrorsTest, BadFrames) {
  struct BadFrame {
    const char* what;
    int frame;
    std::function<void(v1::UpdateRequest&)> change;
    const char* reason;
    const char* message;
  };
  const BadFrame cases[] = {
      {"a damaged byte", 1, [](auto& m) { (*m.mutable_rows()->mutable_data())[3] ^= 1; },
       "CRC_MISMATCH", "crc"},
      {"a byte too few", 1, [](auto& m) { m.mutable_rows()->mutable_data()->pop_back(); },
       "BAD_ARGUMENT", "15"},
      {"rows left out", 2, [](auto& m) { m.mutable_rows()->set_first_row(0); }, "BAD_ARGUMENT",
       "row"},
      {"more rows than the batch has", 2, [](auto& m) { m.mutable_rows()->set_row_count(2); },
       "BAD_ARGUMENT", "row"},
      {"another count at the end", 3, [](auto& m) { m.mutable_end()->set_rows(3); }, "BAD_ARGUMENT",
       "3"},
  };
  for (const BadFrame& bad : cases) {
    SCOPED_TRACE(bad.what);
    Trainer trainer(stub(), ++client_);
    const int64_t step = trainer.Claim("f").next();
    const std::string before = Standing("f");
    std::vector<v1::UpdateRequest> frames = Frames(GoldenBatch(factor_, step), 1);
    bad.change(frames[bad.frame]);
    for (const v1::UpdateRequest& frame : frames) trainer.Write(frame);
    EXPECT_THAT(trainer.AwaitRefusal().status(),
                IsRpcError(StatusCode::INVALID_ARGUMENT, bad.reason, bad.message));
    EXPECT_EQ(Standing("f"), before);
    trainer.Send(GoldenBatch(factor_, step), 1);
    trainer.AwaitNext("f", step + 1);
  }
}

TEST_P(UpdateErrorsTest, StepsThatDoNotAgree) {
  const v1::FactorInfo two = Create("two", LayerSpec(2, 2, true, 2));
  Trainer first(stub(), 101);
  first.Claim("two", 0);
  Trainer second(stub(), 102);
  second.Claim("two", 1);
  first.Send(GoldenBatch(two, 1, 0));
  // The same batch once more is harmless; another one in its name is not.
  first.Send(GoldenBatch(two, 1, 0));
  Batch other = GoldenBatch(two, 1, 0);
  other.header.set_digest("another digest..");
  first.Send(other);
  EXPECT_THAT(first.AwaitRefusal().status(),
              IsRpcError(StatusCode::INVALID_ARGUMENT, "IDENTITY_REUSED", "step 1"));
  Batch differing = GoldenBatch(two, 1, 1);
  differing.header.set_decay(0.75);
  second.Send(differing);
  EXPECT_THAT(second.AwaitRefusal().status(),
              IsRpcError(StatusCode::INVALID_ARGUMENT, "STEP_PARAMETERS_DIFFER", "0.75"));
  // What is not one's own cannot be sent.
  first.Send(GoldenBatch(two, 1, 1));
  EXPECT_THAT(first.AwaitRefusal().status(),
              IsRpcError(StatusCode::FAILED_PRECONDITION, "TOWER_NOT_OPEN", "tower 1"));
  EXPECT_EQ(Describe("two").steps_committed(), 0);
  second.Send(GoldenBatch(two, 1, 1));
  first.AwaitNext("two", 2);
  EXPECT_EQ(ReadAll(stub(), ReadOf("two")).tensors[0], kGoldenCovariance);
  // After step 1 comes step 2.
  second.Send(GoldenBatch(two, 3, 1));
  EXPECT_THAT(second.AwaitRefusal().status(),
              IsRpcError(StatusCode::OUT_OF_RANGE, "STEP_OUT_OF_ORDER", "step"));
  EXPECT_EQ(Describe("two").held_batches(), 0);
}

TEST_P(UpdateErrorsTest, Opens) {
  struct BadOpen {
    const char* factor;
    int tower;
    StatusCode code;
    const char* reason;
  };
  Trainer owner(stub(), 100);
  owner.Claim("f");
  Trainer trainer(stub(), 101);
  const std::string before = Standing("f");
  for (const BadOpen& bad : {BadOpen{"missing", 0, StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND"},
                             BadOpen{"a//b", 0, StatusCode::INVALID_ARGUMENT, "BAD_NAME"},
                             BadOpen{"f", 1, StatusCode::OUT_OF_RANGE, "OUT_OF_RANGE"},
                             BadOpen{"f", -1, StatusCode::OUT_OF_RANGE, "OUT_OF_RANGE"},
                             BadOpen{"f", 0, StatusCode::FAILED_PRECONDITION, "TOWER_CLAIMED"}}) {
    trainer.Open(bad.factor, bad.tower);
    const v1::Refused refused = trainer.AwaitRefusal();
    EXPECT_EQ(refused.factor(), bad.factor);
    EXPECT_EQ(refused.step(), 0);
    EXPECT_EQ(refused.tower(), bad.tower);
    EXPECT_THAT(refused.status(), IsRpcError(bad.code, bad.reason, ""));
  }
  EXPECT_EQ(Standing("f"), before);
  // Who says so gets it, and its owner is told when it sends.
  trainer.Claim("f", 0, /*take_over=*/true);
  owner.Send(GoldenBatch(factor_, 2));
  const Trainer::Loss loss = owner.AwaitLoss(2);
  EXPECT_THAT(loss.tower, IsRpcError(StatusCode::FAILED_PRECONDITION, "TOWER_CLAIMED", "\"f\""));
  EXPECT_THAT(loss.batch, IsRpcError(StatusCode::FAILED_PRECONDITION, "TOWER_NOT_OPEN", "tower 0"));
}

TEST_P(UpdateErrorsTest, WhatIsNotTheGrammarEndsTheStream) {
  const v1::UpdateRequest batch = OneFrame(GoldenBatch(factor_, 2));
  v1::UpdateRequest rows, end, header, hello, both;
  *rows.mutable_rows() = batch.rows();
  *end.mutable_end() = batch.end();
  *header.mutable_header() = batch.header();
  hello.mutable_hello()->set_client_id(std::string(16, 'x'));
  hello.mutable_hello()->set_stream(9);
  *both.mutable_open() = v1::Open();
  *both.mutable_rows() = batch.rows();
  const std::string before = Standing("f");
  for (const auto& messages : std::vector<std::vector<v1::UpdateRequest>>{
           {rows}, {end}, {header, header}, {hello}, {both}, {v1::UpdateRequest()}}) {
    Trainer trainer(stub(), ++client_);
    for (const v1::UpdateRequest& message : messages) trainer.Write(message);
    EXPECT_THAT(trainer.AwaitEnd(),
                IsRpcError(StatusCode::INVALID_ARGUMENT, "MALFORMED_FRAME", ""));
    EXPECT_EQ(Standing("f"), before);
  }
}

TEST_P(UpdateErrorsTest, AMessageBeyondTheLimitEndsTheStream) {
  v1::UpdateRequest message = OneFrame(GoldenBatch(factor_, 2));
  message.mutable_rows()->mutable_data()->resize(size_t{5} << 20);
  Trainer trainer(stub(), ++client_);
  trainer.Claim("f");
  trainer.Write(message);
  EXPECT_EQ(trainer.AwaitEnd().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Describe("f").steps_committed(), 1);
}

TEST_P(UpdateErrorsTest, ANewerStreamClosesTheOlderOne) {
  Trainer older(stub(), 1, 1);
  older.Claim("f");
  Trainer newer(stub(), 1, 2);
  newer.Claim("f");
  EXPECT_THAT(older.AwaitEnd(), IsRpcError(StatusCode::ABORTED, "STREAM_SUPERSEDED", "stream"));
  Trainer oldest(stub(), 1, 1);
  EXPECT_THAT(oldest.AwaitEnd(), IsRpcError(StatusCode::ABORTED, "STREAM_SUPERSEDED", "stream"));
  newer.Send(GoldenBatch(factor_, 2));
  newer.AwaitNext("f", 3);
}

class StreamLimitTest : public ServerTest {
 protected:
  StreamLimitTest() { options_.max_streams = 1; }
};

TEST_P(StreamLimitTest, OneStreamTooManyIsToldWhenToComeAgain) {
  Create("f", LayerSpec(2, 2));
  Trainer first(stub(), 1);
  first.Claim("f");
  Trainer second(stub(), 2);
  const grpc::Status status = second.AwaitEnd();
  EXPECT_THAT(status, IsRpcError(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "1 streams"));
  google::rpc::RetryInfo retry;
  const google::rpc::Status rpc = RpcStatusOf(status);
  ASSERT_EQ(rpc.details_size(), 2);
  ASSERT_TRUE(rpc.details(1).UnpackTo(&retry));
  EXPECT_GE(retry.retry_delay().seconds(), 1);
  EXPECT_TRUE(first.Finish().ok());
  Trainer third(stub(), 3);
  third.Claim("f");
}

class BatchBudgetTest : public ServerTest {
 protected:
  BatchBudgetTest() { options_.batch_budget = 64; }
};

TEST_P(BatchBudgetTest, ABatchThatCanNeverFitIsRefusedWithoutARetryDelay) {
  const v1::FactorInfo factor = Create("f", LayerSpec(100, 100));
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(RawBatch(factor, 1, 0, 1, Values(100, 1), Values(100, 1)));
  const v1::Refused refused = trainer.AwaitRefusal();
  EXPECT_THAT(refused.status(), IsRpcError(StatusCode::RESOURCE_EXHAUSTED, "BATCH_BUDGET",
                                           "can never fit the batch budget of 64 bytes"));
  EXPECT_EQ(refused.status().details_size(), 1);
  EXPECT_EQ(Describe("f").steps_committed(), 0);
}

FISHERD_ON_EVERY_TRANSPORT(UpdateErrorsTest);
FISHERD_ON_EVERY_TRANSPORT(StreamLimitTest);
FISHERD_ON_EVERY_TRANSPORT(BatchBudgetTest);

}  // namespace
}  // namespace fisherd::server
