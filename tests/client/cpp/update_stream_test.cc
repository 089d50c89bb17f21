// Tests of update_stream.cc and update_stream_impl.cc: a client's stream against a server that the
// test plays. What cuts do to it: update_connection_test.cc.

#include "fisherd/update_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <limits>
#include <map>
#include <memory>
#include <thread>

#include "fisherd/client.h"
#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

constexpr StepOptions kOptions = {.decay = 0.9};
const UpdateStreamOptions kRaw = {.form = v1::BATCH_FORM_RAW};

class UpdateStreamTest : public testing::Test {
 protected:
  // Answers every open with `next` = 1, and nothing else.
  UpdateStreamTest() {
    server_.on_update = [](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
      if (request.has_open()) {
        v1::UpdateResponse opened = OpenedAt(1);
        opened.mutable_opened()->mutable_progress()->set_factor(request.open().factor());
        opened.mutable_opened()->mutable_progress()->set_tower(request.open().tower());
        call.Write(opened);
      }
      return std::optional<grpc::Status>();
    };
  }

  UpdateWriter Open(UpdateStream& stream, std::string_view factor = "f", int tower = 0) {
    absl::StatusOr<UpdateWriter> writer = stream.Open(factor, tower);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  Batch batch() const { return {.inputs = a_, .outputs_grads = {g_}}; }

  const Matrix<float> a_ = Matrix<float>::Random(6, 3);
  const Matrix<float> g_ = Matrix<float>::Random(6, 2);
  FakeServer server_;
  Client client_ = server_.Connect();
};

TEST_F(UpdateStreamTest, SaysHelloThenOpensThenSendsBatches) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream, "f", 0);
  EXPECT_EQ(writer.factor(), "f");
  EXPECT_EQ(writer.tower(), 0);
  EXPECT_EQ(writer.next_step(), 1);
  EXPECT_EQ(writer.progress().window(), 2);
  EXPECT_EQ(*writer.Write(batch(), kOptions), 1);
  EXPECT_EQ(writer.next_step(), 2);

  const v1::UpdateRequest hello = server_.Message(0);
  EXPECT_EQ(hello.hello().client_id().size(), 16u);
  EXPECT_EQ(hello.hello().stream(), 1u);
  EXPECT_FALSE(hello.has_open());
  const v1::UpdateRequest open = server_.Message(1);
  EXPECT_EQ(open.open().factor(), "f");
  EXPECT_FALSE(open.open().take_over());
  const v1::UpdateRequest batch = server_.Message(2);
  EXPECT_EQ(batch.header().incarnation(), 7u);
  EXPECT_EQ(batch.header().step(), 1);
  EXPECT_EQ(batch.rows().row_count(), 6);
  EXPECT_TRUE(batch.has_end());
}

TEST_F(UpdateStreamTest, ANewerStreamOfAClientHasTheSameIdAndAHigherNumber) {
  UpdateStream first = client_.OpenUpdates(kRaw);
  const v1::Hello one = server_.Message(0).hello();
  UpdateStream second = client_.OpenUpdates(kRaw);
  const v1::Hello two = server_.Message(1).hello();
  EXPECT_EQ(one.client_id(), two.client_id());
  EXPECT_LT(one.stream(), two.stream());
  Client other = server_.Connect();
  UpdateStream third = other.OpenUpdates(kRaw);
  EXPECT_NE(server_.Message(2).hello().client_id(), one.client_id());
}

TEST_F(UpdateStreamTest, ARefusedOpenIsItsError) {
  server_.on_update = [](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
    if (request.has_open()) {
      call.Write(
          RefusedAt(0, grpc::StatusCode::FAILED_PRECONDITION, "TOWER_CLAIMED", "is claimed"));
    }
    return std::optional<grpc::Status>();
  };
  UpdateStream stream = client_.OpenUpdates(kRaw);
  const absl::Status status = stream.Open("f", 0, {.take_over = true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "is claimed");
  EXPECT_EQ(ErrorReason(status), "TOWER_CLAIMED");
  EXPECT_TRUE(server_.Message(1).open().take_over());
  EXPECT_TRUE(stream.status().ok()) << "the stream goes on";
}

TEST_F(UpdateStreamTest, AnOpenWithoutAnswerTimesOutAndCanBeRepeated) {
  server_.on_update = nullptr;
  UpdateStream stream = client_.OpenUpdates(kRaw);
  const absl::Status status = stream.Open("f", 0, {.timeout = absl::Milliseconds(20)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("factor \"f\", tower 0"));
  server_.Message(1);
  std::thread late([&] {
    server_.Message(2);
    server_.Send(OpenedAt(4));
  });
  EXPECT_EQ(Open(stream).next_step(), 4);
  late.join();
}

TEST_F(UpdateStreamTest, BatchesOfSeveralWritersAreContiguous) {
  constexpr int kWriters = 4;
  UpdateStream stream =
      client_.OpenUpdates({.max_frame = 1, .form = v1::BATCH_FORM_RAW});  // a row a message
  std::vector<UpdateWriter> writers;
  for (int tower = 0; tower < kWriters; ++tower) writers.push_back(Open(stream, "f", tower));
  std::vector<std::thread> threads;
  for (UpdateWriter& writer : writers) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2; ++i) ASSERT_TRUE(writer.Write(batch(), kOptions).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  server_.AwaitBatches(2 * kWriters);
  std::map<int, int64_t> steps;
  for (size_t at = 1 + kWriters; at < server_.messages(); at += 6) {
    const v1::BatchHeader header = server_.Message(at).header();
    EXPECT_EQ(header.step(), ++steps[header.tower()]);
    for (int64_t row = 0; row < 6; ++row) {
      const v1::UpdateRequest message = server_.Message(at + row);
      EXPECT_EQ(message.has_header(), row == 0);
      EXPECT_EQ(message.rows().first_row(), row);
      EXPECT_EQ(message.has_end(), row == 5);
    }
  }
  EXPECT_EQ(steps.size(), static_cast<size_t>(kWriters));
}

TEST_F(UpdateStreamTest, WriteWaitsForTheWindowAndNoLonger) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);
  const absl::Status full =
      writer.Write(batch(), kOptions, /*timeout=*/absl::Milliseconds(20)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(full.message()), HasSubstr("step 3: cannot be sent yet: step 1 has not"));
  EXPECT_EQ(writer.next_step(), 3);
  server_.AwaitBatches(2);
  EXPECT_EQ(server_.messages(), 4u) << "nothing of step 3 was sent";

  std::atomic<bool> acknowledged = false;
  std::thread server([&] {
    acknowledged = true;
    server_.Send(AckAt(2));
  });
  EXPECT_EQ(*writer.Write(batch(), kOptions), 3);
  EXPECT_TRUE(acknowledged);
  server.join();
}

TEST_F(UpdateStreamTest, WaitEndedReturnsWithTheAcknowledgement) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  const int64_t step = *writer.Write(batch(), kOptions);
  EXPECT_EQ(writer.WaitEnded(step, absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread server([&] { server_.Send(AckAt(2)); });
  EXPECT_TRUE(writer.WaitEnded(step).ok());
  server.join();
  EXPECT_EQ(writer.progress().durable(), 1);
  EXPECT_EQ(writer.WaitEnded(2).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(UpdateStreamTest, AFailedStepIsTold) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  const int64_t step = *writer.Write(batch(), kOptions);
  v1::UpdateResponse ack = AckAt(2);
  v1::StepRun& run = *ack.mutable_ack()->mutable_progress()->add_missed();
  run.set_first_step(1);
  run.set_last_step(1);
  run.set_outcome(v1::STEP_OUTCOME_FAILED);
  server_.Send(ack);
  const absl::Status status = writer.WaitEnded(step);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(status), "STEP_FAILED");
  EXPECT_EQ(*writer.Write(batch(), kOptions), 2) << "the writer goes on";
}

TEST_F(UpdateStreamTest, ARefusedBatchIsReportedOnceAndWrittenAgain) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);
  server_.Send(
      RefusedAt(1, grpc::StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "NaN in inputs"));
  const absl::Status refused = writer.WaitEnded(1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.message(), "NaN in inputs");
  EXPECT_EQ(ErrorReason(refused), "NON_FINITE_INPUT");
  EXPECT_EQ(ErrorReason(writer.WaitEnded(2)), "STEP_OUT_OF_ORDER");
  EXPECT_EQ(writer.next_step(), 1);

  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  server_.Send(RefusedAt(2, grpc::StatusCode::OUT_OF_RANGE, "STEP_OUT_OF_ORDER", "of the first 2"));
  server_.Send(AckAt(2));
  EXPECT_TRUE(writer.WaitEnded(1).ok());
  EXPECT_EQ(*writer.Write(batch(), kOptions), 2);
}

TEST_F(UpdateStreamTest, AnUnreportedRefusalIsTheNextWritesAnswer) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  server_.AwaitBatches(1);
  server_.Send(RefusedAt(1, grpc::StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "NaN"));
  while (writer.next_step() != 1) std::this_thread::yield();
  const absl::Status status = writer.Write(batch(), kOptions).status();
  EXPECT_EQ(ErrorReason(status), "NON_FINITE_INPUT");
  EXPECT_EQ(server_.messages(), 3u) << "nothing was sent";
  EXPECT_EQ(*writer.Write(batch(), kOptions), 1);
}

TEST_F(UpdateStreamTest, ARefusalWakesAWriterThatWaitsForTheWindow) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);
  std::thread server([&] {
    server_.Send(RefusedAt(1, grpc::StatusCode::FAILED_PRECONDITION, "OLD_INCARNATION", "reset"));
  });
  EXPECT_EQ(ErrorReason(writer.Write(batch(), kOptions).status()), "OLD_INCARNATION");
  server.join();
}

TEST_F(UpdateStreamTest, ARefusalAsOutOfOrderSaysNothingNew) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  server_.Send(RefusedAt(1, grpc::StatusCode::OUT_OF_RANGE, "STEP_OUT_OF_ORDER", "stale"));
  server_.Send(AckAt(2));
  EXPECT_TRUE(writer.WaitEnded(1).ok());
}

TEST_F(UpdateStreamTest, HeldBatchesAreSentAgainWithoutTheirWriter) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);
  server_.AwaitBatches(2);
  server_.Send(HoldAt(1));
  server_.Send(HoldAt(2));
  v1::UpdateResponse room = AckAt(1);
  room.mutable_ack()->mutable_progress()->set_open_through(0);
  server_.Send(room);
  room.mutable_ack()->mutable_progress()->set_open_through(1);
  server_.Send(room);
  EXPECT_EQ(server_.Message(4).header().step(), 1);
  EXPECT_EQ(server_.Message(4).SerializeAsString(), server_.Message(2).SerializeAsString());
  EXPECT_EQ(server_.Message(5).header().step(), 2);
  EXPECT_EQ(writer.stats().resent_batches, 2);
  server_.Send(AckAt(3));
  EXPECT_TRUE(writer.WaitEnded(2).ok());
}

TEST_F(UpdateStreamTest, AStepThatEndedWithoutItsBatchIsLate) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  v1::UpdateResponse ack = AckAt(2);
  v1::StepRun& run = *ack.mutable_ack()->mutable_progress()->add_missed();
  run.set_first_step(1);
  run.set_last_step(1);
  run.set_outcome(v1::STEP_OUTCOME_PARTIAL);
  server_.Send(ack);
  while (writer.progress().next() != 2) std::this_thread::yield();
  const absl::Status late = writer.Write(batch(), kOptions).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ErrorReason(late), "STEP_LATE");
  EXPECT_EQ(server_.messages(), 2u) << "nothing was sent";
  EXPECT_EQ(writer.progress().missed(0).outcome(), v1::STEP_OUTCOME_PARTIAL);
  EXPECT_EQ(*writer.Write(batch(), kOptions), 2);
}

TEST_F(UpdateStreamTest, WaitDurableWaitsForMoreThanWaitEnded) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  v1::UpdateResponse ack = AckAt(2);
  ack.mutable_ack()->mutable_progress()->set_durable(0);
  server_.Send(ack);
  EXPECT_TRUE(writer.WaitEnded(1).ok());
  const absl::Status waiting = writer.WaitDurable(1, absl::Milliseconds(20));
  EXPECT_EQ(waiting.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(waiting.message()), HasSubstr("not durable"));
  server_.Send(AckAt(2));
  EXPECT_TRUE(writer.WaitDurable(1).ok());
}

TEST_F(UpdateStreamTest, AFullBufferMakesWriteWait) {
  const UpdateStreamOptions options = {.max_buffered_bytes = 200, .form = v1::BATCH_FORM_RAW};
  UpdateStream stream = client_.OpenUpdates(options);
  UpdateWriter writer = Open(stream);
  UpdateWriter other = Open(stream, "g");
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);  // 120 bytes
  const absl::Status full = other.Write(batch(), kOptions, absl::Milliseconds(20)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(full), "CLIENT_BUFFER");
  EXPECT_THAT(std::string(full.message()), HasSubstr("120 bytes, and 120 of max_buffered_bytes"));
  std::thread server([&] { server_.Send(AckAt(2)); });
  EXPECT_EQ(*other.Write(batch(), kOptions), 1);
  server.join();
  const Matrix<float> large = Matrix<float>::Zero(51, 1);
  const absl::Status never = writer.Write({.inputs = large}, kOptions).status();
  EXPECT_EQ(never.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(never.message()), HasSubstr("is 204 bytes, but max_buffered_bytes is"));
}

TEST_F(UpdateStreamTest, TheSmallerFormTravels) {
  server_.on_describe = [](const v1::DescribeFactorRequest& request,
                           v1::DescribeFactorResponse& response) {
    EXPECT_EQ(request.name(), "f");
    auto& layer = *response.mutable_factor()->mutable_spec()->mutable_fully_connected_diagonal();
    layer.set_input_size(3);
    layer.set_output_size(2);
    layer.set_has_bias(true);
    return grpc::Status::OK;
  };
  UpdateStream stream = client_.OpenUpdates();
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), {.decay = 0.9, .gradient_scale = 2}),
            1);  // 120 against 32 bytes
  const v1::UpdateRequest reduced = server_.Message(2);
  EXPECT_EQ(reduced.header().form(), v1::BATCH_FORM_CONTRIBUTION);
  EXPECT_EQ(reduced.header().rows(), 6);
  EXPECT_EQ(reduced.end().rows(), 4);
  ASSERT_EQ(reduced.rows().data().size(), 32u);
  Matrix<float> expected(4, 2);
  expected << a_.cwiseAbs2().transpose() * g_.cwiseAbs2(), g_.cwiseAbs2().colwise().sum();
  const Eigen::Map<const Matrix<float>> sent(
      reinterpret_cast<const float*>(reduced.rows().data().data()), 4, 2);
  EXPECT_TRUE(sent.isApprox(4.0f / 6.0f * expected, 1e-5f));

  const Batch one_row = {.inputs = a_.topRows(1), .outputs_grads = {g_.topRows(1)}};
  ASSERT_EQ(*writer.Write(one_row, kOptions), 2);  // 20 against 32
  EXPECT_EQ(server_.Message(3).header().form(), v1::BATCH_FORM_RAW);
  const UpdateStats stats = writer.stats();
  EXPECT_EQ(stats.contribution_batches, 1);
  EXPECT_EQ(stats.contribution_bytes, 32);
  EXPECT_EQ(stats.raw_batches, 1);
  EXPECT_EQ(stats.raw_bytes, 20);
}

TEST_F(UpdateStreamTest, AFactorThatCannotBeDescribedIsSentRaw) {
  server_.on_describe = [](const v1::DescribeFactorRequest&, v1::DescribeFactorResponse&) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  };
  UpdateStream stream = client_.OpenUpdates();
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  EXPECT_EQ(server_.Message(2).header().form(), v1::BATCH_FORM_RAW);
  UpdateStream strict = client_.OpenUpdates({.form = v1::BATCH_FORM_CONTRIBUTION});
  UpdateWriter other = Open(strict, "g");
  EXPECT_EQ(other.Write(batch(), kOptions).status().code(), absl::StatusCode::kInternal);
}

TEST_F(UpdateStreamTest, WhatIsNotOfTheLayerTravelsRawForTheServerToRefuse) {
  server_.on_describe = [](const v1::DescribeFactorRequest&, v1::DescribeFactorResponse& response) {
    auto& layer = *response.mutable_factor()->mutable_spec()->mutable_fully_connected_diagonal();
    layer.set_input_size(3);
    layer.set_output_size(3);
    return grpc::Status::OK;
  };
  UpdateStream stream = client_.OpenUpdates({.form = v1::BATCH_FORM_CONTRIBUTION});
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  EXPECT_EQ(server_.Message(2).header().form(), v1::BATCH_FORM_RAW);
  Matrix<float> g = Matrix<float>::Ones(6, 3);
  ASSERT_EQ(
      *writer.Write({.inputs = a_, .outputs_grads = {g}}, {.decay = 0.9, .gradient_scale = -1}), 2);
  EXPECT_EQ(server_.Message(3).header().form(), v1::BATCH_FORM_RAW);
  g(3, 1) = std::numeric_limits<float>::quiet_NaN();
  const absl::Status status = writer.Write({.inputs = a_, .outputs_grads = {g}}, kOptions).status();
  EXPECT_EQ(ErrorReason(status), "NON_FINITE_INPUT");
  EXPECT_EQ(writer.next_step(), 3) << "nothing was written";
}

TEST_F(UpdateStreamTest, ATowerThatIsLostEndsItsWriter) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  server_.Send(RefusedAt(0, grpc::StatusCode::FAILED_PRECONDITION, "OLD_INCARNATION", "was reset"));
  EXPECT_EQ(ErrorReason(writer.WaitEnded(1)), "OLD_INCARNATION");
  EXPECT_EQ(ErrorReason(writer.Write(batch(), kOptions).status()), "OLD_INCARNATION");
  EXPECT_EQ(Open(stream).next_step(), 1);
}

TEST_F(UpdateStreamTest, ABatchThatCannotBeCutSendsNothing) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  const absl::Status status =
      writer.Write({.inputs = a_, .outputs_grads = {g_.topRows(2)}}, kOptions).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "BAD_ARGUMENT");
  EXPECT_EQ(writer.next_step(), 1);
  EXPECT_EQ(*writer.Write(batch(), kOptions), 1);
  server_.AwaitBatches(1);
  EXPECT_EQ(server_.messages(), 3u);
}

TEST_F(UpdateStreamTest, OpeningATowerAnewEndsTheOlderWriter) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter older = Open(stream);
  ASSERT_EQ(*older.Write(batch(), kOptions), 1);
  UpdateWriter newer = Open(stream);
  EXPECT_EQ(older.WaitEnded(1).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(older.Write(batch(), kOptions).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(*newer.Write(batch(), kOptions), 1);
}

TEST_F(UpdateStreamTest, TheLossOfTheStreamIsEveryonesAnswer) {
  const auto answer = server_.on_update.Get();
  server_.on_update = [answer](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
    if (request.has_end()) {
      return std::optional(Error(grpc::StatusCode::ABORTED, "STREAM_SUPERSEDED", "a newer one"));
    }
    return answer(request, call);
  };
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  const absl::Status lost = writer.WaitEnded(1);
  EXPECT_EQ(lost.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(lost.message(), "a newer one");
  EXPECT_EQ(ErrorReason(lost), "STREAM_SUPERSEDED");
  EXPECT_EQ(writer.Write(batch(), kOptions).status(), lost);
  EXPECT_EQ(stream.Open("f", 0).status(), lost);
  EXPECT_EQ(stream.status(), lost);
}

TEST_F(UpdateStreamTest, TheLossOfTheStreamFreesAWriterWhoseBytesNobodyTakes) {
  const auto answer = server_.on_update.Get();
  server_.on_update = [answer](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
    if (request.has_header()) {
      return std::optional(Error(grpc::StatusCode::ABORTED, "STREAM_SUPERSEDED", "a newer one"));
    }
    return answer(request, call);
  };
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  const Matrix<float> large = Matrix<float>::Zero(64, 1 << 18);  // 64 MiB
  writer.Write({.inputs = large}, kOptions).IgnoreError();       // it may be buffered already
  EXPECT_EQ(ErrorReason(writer.WaitEnded(1)), "STREAM_SUPERSEDED");
}

TEST_F(UpdateStreamTest, ClosingLetsTheServerReadEverything) {
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  EXPECT_TRUE(stream.Close().ok());
  EXPECT_EQ(server_.messages(), 3u);
  EXPECT_TRUE(server_.Message(2).has_end());
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(writer.Write(batch(), kOptions).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(writer.WaitEnded(1).code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(stream.Close().ok()) << "once more does no harm";
}

TEST_F(UpdateStreamTest, ClosingDoesNotWaitForAServerThatHangs) {
  const auto gate = std::make_shared<std::latch>(1);
  const auto answer = server_.on_update.Get();
  server_.on_update = [answer, gate](const v1::UpdateRequest& request,
                                     FakeServer::UpdateCall& call) {
    if (request.has_end()) gate->wait();
    return answer(request, call);
  };
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  EXPECT_EQ(stream.Close(absl::Milliseconds(20)).code(), absl::StatusCode::kCancelled);
  gate->count_down();
}

TEST_F(UpdateStreamTest, ClosingDoesNotWaitForAWriterWhoseBytesNobodyTakes) {
  const auto gate = std::make_shared<std::latch>(1);
  const auto answer = server_.on_update.Get();
  server_.on_update = [answer, gate](const v1::UpdateRequest& request,
                                     FakeServer::UpdateCall& call) {
    if (request.has_header()) gate->wait();
    return answer(request, call);
  };
  UpdateStream stream = client_.OpenUpdates(kRaw);
  UpdateWriter writer = Open(stream);
  const Matrix<float> large = Matrix<float>::Zero(64, 1 << 18);  // 64 MiB
  std::thread thread([&] {
    EXPECT_EQ(writer.Write({.inputs = large}, kOptions).status().code(),
              absl::StatusCode::kCancelled);
  });
  server_.Message(2);
  EXPECT_EQ(stream.Close(absl::Milliseconds(20)).code(), absl::StatusCode::kCancelled);
  thread.join();
  gate->count_down();
}

TEST_F(UpdateStreamTest, AWriterMayOutliveItsStreamAndTheStreamItsClient) {
  std::optional<UpdateWriter> writer;
  {
    Client client = server_.Connect();
    std::optional<UpdateStream> stream = client.OpenUpdates(kRaw);
    writer = Open(*stream);
    Client moved = std::move(client);
    stream = moved.OpenUpdates(kRaw);  // assignment closes the older
  }
  EXPECT_EQ(writer->Write(batch(), kOptions).status().code(), absl::StatusCode::kCancelled);
}

TEST(UpdateStreamWithoutServerTest, TheFirstOpenSaysWhatIsWrong) {
  auto server = std::make_unique<FakeServer>();
  Client client = server->Connect();
  server.reset();
  UpdateStream stream = client.OpenUpdates(kRaw);
  EXPECT_EQ(stream.Open("f", 0, {.timeout = absl::Milliseconds(20)}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(stream.status().ok()) << "it goes on trying";
  UpdateStream impatient = client.OpenUpdates({.reconnect_timeout = absl::ZeroDuration()});
  EXPECT_EQ(impatient.Open("f", 0).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(impatient.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace fisherd
