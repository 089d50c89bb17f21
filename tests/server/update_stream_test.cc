#include "server/update_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fisherd/v1/factor_service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "tests/server/served_test.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

class UpdateOnly final
    : public v1::FactorService::WithRawCallbackMethod_Update<v1::FactorService::Service> {
 public:
  UpdateOnly(core::FactorRegistry& registry, SessionTable& sessions)
      : registry_(registry), sessions_(sessions) {}
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Update(
      grpc::CallbackServerContext*) override {
    return UpdateStream::Start(registry_, sessions_, nullptr);
  }

 private:
  core::FactorRegistry& registry_;
  SessionTable& sessions_;
};

// One stream of a client over TCP.
class Stream {
 public:
  explicit Stream(v1::FactorService::Stub& stub) : stream_(stub.Update(&context_)) {}
  ~Stream() {
    if (finished_) return;
    Cancel();
    while (Read().has_value()) continue;
    stream_->Finish();
  }

  bool Write(const v1::UpdateRequest& message) { return stream_->Write(message); }
  std::optional<v1::UpdateResponse> Read() {
    v1::UpdateResponse answer;
    return stream_->Read(&answer) ? std::optional(answer) : std::nullopt;
  }
  v1::Progress Open(const std::string& factor, int tower = 0) {
    EXPECT_TRUE(Write(OpenMessage(factor, tower)));
    const auto answer = Read();
    EXPECT_TRUE(answer.has_value() && answer->has_opened());
    return answer.value_or(v1::UpdateResponse()).opened().progress();
  }
  void WritesDone() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }
  // The status, after the answers that are left.
  grpc::Status Finish() {
    while (Read().has_value()) continue;
    finished_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::UpdateRequest, v1::UpdateResponse>> stream_;
  bool finished_ = false;
};

class UpdateStreamTest : public ServedTest {
 protected:
  UpdateStreamTest()
      : ServedTest({.state_budget = 64 << 20, .batch_budget = 64 << 20}),
        service_(*registry_, table_) {
    Serve(service_);
  }
  ~UpdateStreamTest() override {
    table_.Shutdown();
    StopServing();
  }

  std::unique_ptr<Stream> Connect(int client, uint64_t stream = 1) {
    auto connected = std::make_unique<Stream>(*stub_);
    EXPECT_TRUE(connected->Write(HelloMessage(client, stream)));
    return connected;
  }
  static void ExpectEnd(const grpc::Status& status, grpc::StatusCode code,
                        std::string_view reason) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(status.error_details()));
    EXPECT_EQ(InfoOf(details).reason(), reason);
  }

  UpdateOnly service_;
};

TEST_F(UpdateStreamTest, CarriesBatchesAndAcknowledgements) {
  auto factor = Create("mlp/0", Golden());
  auto stream = Connect(1);
  EXPECT_EQ(stream->Open("mlp/0").next(), 1);
  for (int64_t step = 1; step <= 20; ++step) {
    v1::UpdateRequest batch = Header("mlp/0", step);
    batch.mutable_header()->set_decay(0);
    ASSERT_TRUE(stream->Write(BatchMessage(batch, golden_batch_)));
    const auto answer = stream->Read();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->ack().progress().next(), step + 1);
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(Elements(ReadAfter(*factor, 20)), golden_covariance_);
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
}

// 3 MiB in one message, which gRPC hands over in dozens of slices.
TEST_F(UpdateStreamTest, CarriesLargeMessages) {
  constexpr int64_t kRows = 3, kInputs = 200'000, kOutputs = 1;
  auto factor = Create("wide", Spec(kInputs, kOutputs, false));
  auto stream = Connect(1);
  stream->Open("wide");
  Floats elements;
  for (int64_t i = 0; i < kRows * kInputs; ++i) elements.push_back(static_cast<float>(i % 1009));
  elements.insert(elements.end(), kRows * kOutputs, 1.0f);
  ASSERT_TRUE(stream->Write(BatchMessage(
      HeaderMessage("wide", Incarnation("wide"), 1, kRows, 0, kInputs, kOutputs), elements)));
  const auto answer = stream->Read();
  ASSERT_TRUE(answer.has_value() && answer->has_ack()) << answer->DebugString();
  const Floats covariance = Elements(ReadAfter(*factor, 1));
  ASSERT_EQ(covariance.size(), kInputs);
  for (int64_t i = 0; i < kInputs; ++i) {
    double expected = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      expected += static_cast<double>(elements[row * kInputs + i]) * elements[row * kInputs + i];
    }
    ASSERT_FLOAT_EQ(covariance[i], static_cast<float>(expected / kRows)) << i;
  }
}

TEST_F(UpdateStreamTest, AClientThatHasDoneWritingGetsItsAnswersAndOk) {
  Create("mlp/0", Golden(2));
  auto stream = Connect(1);
  ASSERT_TRUE(stream->Write(OpenMessage("mlp/0", 0)));
  ASSERT_TRUE(stream->Write(GoldenBatch("mlp/0", 1, 0)));
  ASSERT_TRUE(stream->Write(GoldenBatch("mlp/0", 9, 0)));
  ASSERT_TRUE(stream->Write(Header("mlp/0", 2, 0)));  // and no more of it
  stream->WritesDone();
  EXPECT_TRUE(stream->Read()->has_opened());
  EXPECT_EQ(stream->Read()->refused().step(), 9);
  EXPECT_TRUE(stream->Finish().ok());
  // The whole batch is held, the unfinished one is gone; so is the claim.
  const core::FactorInfo info = (*registry_->Find("mlp/0"))->Describe();
  EXPECT_EQ(info.held_batches, 1);
  EXPECT_EQ(info.towers[0].received_through, 1);
  EXPECT_FALSE(info.towers[0].claimed);
}

TEST_F(UpdateStreamTest, AMalformedMessageEndsTheStream) {
  auto stream = Connect(1);
  stream->Write(v1::UpdateRequest());
  const grpc::Status status = stream->Finish();
  ExpectEnd(status, grpc::INVALID_ARGUMENT, core::reason::kMalformedFrame);
  EXPECT_THAT(status.error_message(),
              HasSubstr("a message with nothing; expected open or want_durable alone"));
}

TEST_F(UpdateStreamTest, ASupersededStreamEnds) {
  auto factor = Create("mlp/0", Golden());
  auto older = Connect(1, 1);
  older->Open("mlp/0");
  auto newer = Connect(1, 2);
  EXPECT_EQ(newer->Open("mlp/0").next(), 1);
  ExpectEnd(older->Finish(), grpc::ABORTED, core::reason::kStreamSuperseded);
  EXPECT_TRUE(factor->Describe().towers[0].claimed);
}

TEST_F(UpdateStreamTest, ACancelledStreamLetsGo) {
  auto factor = Create("mlp/0", Golden());
  auto stream = Connect(1);
  stream->Open("mlp/0");
  ASSERT_TRUE(stream->Write(Header("mlp/0", 1)));
  stream->Cancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
  // Another client's open is refused until the server has noticed.
  auto other = Connect(2);
  bool opened = false;
  while (!opened) {
    ASSERT_TRUE(other->Write(OpenMessage("mlp/0")));
    const auto answer = other->Read();
    ASSERT_TRUE(answer.has_value());
    opened = answer->has_opened();
  }
  ASSERT_TRUE(other->Write(GoldenBatch("mlp/0", 1)));
  EXPECT_EQ(other->Read()->ack().progress().next(), 2);
}

TEST_F(UpdateStreamTest, ShutdownEndsStreams) {
  Create("mlp/0", Golden());
  auto silent = std::make_unique<Stream>(*stub_);
  auto stream = Connect(1);
  stream->Open("mlp/0");
  table_.Shutdown();
  ExpectEnd(stream->Finish(), grpc::UNAVAILABLE, core::reason::kShuttingDown);
  ExpectEnd(silent->Finish(), grpc::UNAVAILABLE, core::reason::kShuttingDown);
  ExpectEnd(Stream(*stub_).Finish(), grpc::UNAVAILABLE, core::reason::kShuttingDown);
}

// Far more answers than may wait: reading stops, and goes on when they have been read.
TEST_F(UpdateStreamTest, EveryAnswerOfASlowReaderArrives) {
  constexpr int kOpens = 5 * Session::kMaxWaitingAnswers;
  auto stream = Connect(1);
  std::thread writer([&] {
    for (int tower = 0; tower < kOpens; ++tower) {
      EXPECT_TRUE(stream->Write(OpenMessage("nothing there", tower)));
    }
    stream->WritesDone();
  });
  for (int tower = 0; tower < kOpens; ++tower) {
    const auto answer = stream->Read();
    ASSERT_TRUE(answer.has_value());
    ASSERT_EQ(answer->refused().tower(), tower);
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
}

// For ThreadSanitizer: streams that end in every way while commits run.
TEST_F(UpdateStreamTest, ManyAtOnce) {
  constexpr int kTowers = 3;
  auto factor = Create("mlp/0", Golden(kTowers));
  const uint64_t incarnation = Incarnation("mlp/0");
  std::vector<std::thread> threads;
  for (int tower = 0; tower < kTowers; ++tower) {
    threads.emplace_back([&, tower] {
      int64_t next = 1;
      std::unique_ptr<Stream> superseded;
      for (uint64_t number = 1; number <= 20; ++number) {
        auto stream = Connect(tower, number);
        stream->Write(OpenMessage("mlp/0", tower));
        for (const int64_t step : {next, next + 1}) {
          stream->Write(
              BatchMessage(HeaderMessage("mlp/0", incarnation, step, 2, tower), golden_batch_));
        }
        if (const auto answer = stream->Read(); answer.has_value() && answer->has_opened()) {
          next = answer->opened().progress().next();
        }
        if (number % 3 == 0) {
          stream->WritesDone();
          stream->Finish();
        } else if (number % 3 == 1) {
          superseded = std::move(stream);
        }  // else cancelled
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(factor->Describe().next, 1);
}

}  // namespace
}  // namespace fisherd::server
