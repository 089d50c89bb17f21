// What ends while others wait: factors and the server. And what tells whether it serves.

#include <functional>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;
using ::testing::AnyOf;

class LifecycleTest : public ServerTest {
 protected:
  // A Read of step 2 that has not come, begun and not ended.
  struct WaitingRead {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::ReadResponse>> stream;

    grpc::Status Await() {
      v1::ReadResponse response;
      EXPECT_FALSE(stream->Read(&response));
      return stream->Finish();
    }
  };
  std::unique_ptr<WaitingRead> StartRead(const v1::FactorInfo& factor) {
    v1::ReadRequest request = ReadOf(factor.name());
    request.mutable_min_version()->set_incarnation(factor.version().incarnation());
    request.mutable_min_version()->set_step(2);
    auto read = std::make_unique<WaitingRead>();
    read->stream = stub().Read(&read->context, request);
    return read;
  }

  // A half-sent batch of step 2, a waiting read and a waiting Multiply; then `end`.
  void ExpectOldIncarnation(const std::function<void()>& end) {
    const v1::FactorInfo factor = CreateGolden("f");
    Trainer trainer(stub(), 1);
    trainer.Claim("f");
    const std::vector<v1::UpdateRequest> frames = Frames(GoldenBatch(factor, 2), 1);
    trainer.Write(frames[0]);
    trainer.Write(frames[1]);
    while (Describe("f").held_bytes() == 0) std::this_thread::yield();
    const auto read = StartRead(factor);
    grpc::ClientContext context;
    const auto multiply = stub().Multiply(&context);
    v1::MultiplyRequest request;
    request.mutable_header()->set_factor("f");
    *request.mutable_header()->mutable_operator_() = Covariance();
    request.mutable_header()->mutable_min_version()->set_incarnation(
        factor.version().incarnation());
    request.mutable_header()->mutable_min_version()->set_step(2);
    multiply->Write(request);

    end();
    const auto old = IsRpcError(StatusCode::FAILED_PRECONDITION, "OLD_INCARNATION", "factor \"f\"");
    // Of calls on one connection, the one that was sent first need not be handled first.
    const auto gone = IsRpcError(StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "factor \"f\"");
    EXPECT_THAT(read->Await(), AnyOf(old, gone));
    v1::MultiplyResponse response;
    EXPECT_FALSE(multiply->Read(&response));
    EXPECT_THAT(multiply->Finish(), AnyOf(old, gone));
    trainer.Write(frames[2]);
    trainer.Write(frames[3]);
    const Trainer::Loss loss = trainer.AwaitLoss(2);
    EXPECT_THAT(loss.tower, old);
    EXPECT_THAT(loss.batch, old);
    // The stream goes on with what is there now.
    const v1::FactorInfo now = Create("f", LayerSpec(2, 2));
    EXPECT_GT(now.version().incarnation(), factor.version().incarnation());
    EXPECT_EQ(trainer.Claim("f").next(), 1);
    trainer.Send(GoldenBatch(now, 1));
    trainer.AwaitNext("f", 2);
    EXPECT_EQ(ReadAll(stub(), ReadOf("f")).tensors[0], kGoldenCovariance);
  }

  // One message there, one back, of a method whose stubs are not at hand.
  std::string CallRaw(const std::string& method, const std::string& request) {
    grpc::GenericStub generic(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto call = generic.PrepareCall(&context, method, &queue);
    void* tag;
    bool ok;
    const auto await = [&] { return queue.Next(&tag, &ok) && ok; };
    call->StartCall(nullptr);
    EXPECT_TRUE(await());
    const grpc::Slice slice(request);
    call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
    EXPECT_TRUE(await());
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    const bool answered = await();
    grpc::Status status;
    call->Finish(&status, nullptr);
    EXPECT_TRUE(await());
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<grpc::Slice> slices;
    if (answered) answer.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& s : slices) bytes.append(s.begin(), s.end());
    return bytes;
  }

  void SetUp() override {
    ServerTest::SetUp();
    channel_ = NewChannel();
  }
  void TearDown() override { channel_ = nullptr; }

  std::shared_ptr<grpc::Channel> channel_;
};

TEST_P(LifecycleTest, DeletionEndsWhatWaits) {
  ExpectOldIncarnation([this] {
    v1::DeleteFactorRequest request;
    request.set_name("f");
    v1::DeleteFactorResponse response;
    EXPECT_TRUE(Call(&v1::FactorService::Stub::DeleteFactor, request, &response).ok());
  });
}

TEST_P(LifecycleTest, ResetEndsWhatWaits) {
  ExpectOldIncarnation([this] {
    v1::ResetFactorRequest request;
    request.set_name("f");
    v1::ResetFactorResponse response;
    EXPECT_TRUE(Call(&v1::FactorService::Stub::ResetFactor, request, &response).ok());
  });
}

TEST_P(LifecycleTest, ATransferUnderWayKeepsADeletedFactorsVersion) {
  const v1::FactorInfo factor = Create("f", LayerSpec(1024, 1024, /*has_bias=*/false));
  grpc::ClientContext context;
  const auto stream = stub().Read(&context, ReadOf("f"));
  v1::ReadResponse response;
  ASSERT_TRUE(stream->Read(&response));
  v1::DeleteFactorRequest request;
  request.set_name("f");
  v1::DeleteFactorResponse deleted;
  ASSERT_TRUE(Call(&v1::FactorService::Stub::DeleteFactor, request, &deleted).ok());
  size_t bytes = 0;
  while (stream->Read(&response)) bytes += response.chunk().data().size();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(bytes, 1024 * 1024 * 4);
}

// With an hour of grace, whoever had to be waited for would hang this test.
TEST_P(LifecycleTest, ShutdownEndsStreamsAndWaitingReads) {
  const v1::FactorInfo factor = CreateGolden("f");
  // First: what the trainers hear of the server comes after it on the same connection.
  const auto read = StartRead(factor);
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  Trainer silent(stub(), 2);
  silent.Open("f", 0);
  silent.AwaitRefusal();
  grpc::Status read_status;
  std::thread reader([&] { read_status = read->Await(); });
  grpc::Status trainer_status, silent_status;
  std::thread streams([&] {
    trainer_status = trainer.AwaitEnd();
    silent_status = silent.AwaitEnd();
  });
  server_->Shutdown(absl::Hours(1));
  reader.join();
  streams.join();
  EXPECT_EQ(read_status.error_code(), StatusCode::UNAVAILABLE) << read_status.error_message();
  EXPECT_EQ(trainer_status.error_code(), StatusCode::UNAVAILABLE) << trainer_status.error_message();
  EXPECT_EQ(silent_status.error_code(), StatusCode::UNAVAILABLE) << silent_status.error_message();
  // Without sockets gRPC closes connections at once, and its own word may come first.
  if (GetParam() == Transport::kInProcess) return;
  EXPECT_THAT(trainer_status, IsRpcError(StatusCode::UNAVAILABLE, "SHUTTING_DOWN", ""));
  EXPECT_THAT(silent_status, IsRpcError(StatusCode::UNAVAILABLE, "SHUTTING_DOWN", ""));
}

TEST_P(LifecycleTest, ShutdownWithoutGraceCancelsTransfers) {
  Create("f", LayerSpec(2048, 2048, /*has_bias=*/false));
  grpc::ClientContext read_context;
  const auto read = stub().Read(&read_context, ReadOf("f"));
  v1::ReadResponse response;
  ASSERT_TRUE(read->Read(&response));
  grpc::ClientContext multiply_context;
  const auto multiply = stub().Multiply(&multiply_context);
  v1::MultiplyRequest request;
  request.mutable_header()->set_factor("f");
  *request.mutable_header()->mutable_operator_() = Covariance();
  ASSERT_TRUE(multiply->Write(request));
  v1::MultiplyResponse product;
  ASSERT_TRUE(multiply->Read(&product));

  server_ = nullptr;
  while (read->Read(&response)) continue;
  EXPECT_FALSE(read->Finish().ok());
  while (multiply->Read(&product)) continue;
  EXPECT_FALSE(multiply->Finish().ok());
}

// Clients that go without a word leave nothing behind that would keep the server.
TEST_P(LifecycleTest, CancelledCallsAreOver) {
  const v1::FactorInfo factor = CreateGolden("f");
  for (int i = 0; i < 20; ++i) {
    Trainer trainer(stub(), i);
    if (i % 2 == 0) trainer.Open("f", 0, /*take_over=*/true);
    const auto read = StartRead(factor);
    grpc::ClientContext context;
    const auto multiply = stub().Multiply(&context);
    trainer.Cancel();
    read->context.TryCancel();
    context.TryCancel();
    EXPECT_EQ(read->Await().error_code(), StatusCode::CANCELLED);
    v1::MultiplyResponse response;
    EXPECT_FALSE(multiply->Read(&response));
    EXPECT_EQ(multiply->Finish().error_code(), StatusCode::CANCELLED);
  }
  server_->Shutdown(absl::Hours(1));
}

TEST_P(LifecycleTest, HealthSaysServing) {
  const std::string serving = "\x08\x01";  // HealthCheckResponse{status: SERVING}
  EXPECT_EQ(CallRaw("/grpc.health.v1.Health/Check", ""), serving);
  EXPECT_EQ(CallRaw("/grpc.health.v1.Health/Check",
                    "\x0a\x18"
                    "fisherd.v1.FactorService"),
            serving);
}

// Not for ThreadSanitizer: Watch is served by a reactor within gRPC's library, which orders its own
// operations by a lock that is not seen.
#ifndef _GLIBCXX_TSAN
TEST_P(LifecycleTest, HealthSaysNotServingAtShutdown) {
  grpc::GenericStub generic(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = generic.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  void* tag;
  bool ok;
  const auto await = [&] { return queue.Next(&tag, &ok) && ok; };
  const auto next = [&] {
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    if (!await()) return std::string("none");
    std::vector<grpc::Slice> slices;
    answer.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& s : slices) bytes.append(s.begin(), s.end());
    return bytes;
  };
  call->StartCall(nullptr);
  ASSERT_TRUE(await());
  const grpc::Slice everything("", 0);
  call->WriteLast(grpc::ByteBuffer(&everything, 1), {}, nullptr);
  ASSERT_TRUE(await());
  EXPECT_EQ(next(), "\x08\x01");
  std::thread shutdown([this] { server_->Shutdown(absl::Hours(1)); });
  EXPECT_EQ(next(), "\x08\x02");  // NOT_SERVING
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(await());
  shutdown.join();
}
#endif

TEST_P(LifecycleTest, ReflectionListsTheService) {
  // ServerReflectionRequest{list_services: ""}
  const std::string request("\x3a\x00", 2);
  const std::string answer =
      CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", request);
  EXPECT_THAT(answer, testing::HasSubstr("fisherd.v1.FactorService"));
  EXPECT_THAT(answer, testing::HasSubstr("grpc.health.v1.Health"));
}

FISHERD_ON_EVERY_TRANSPORT(LifecycleTest);

}  // namespace
}  // namespace fisherd::server
