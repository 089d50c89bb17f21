#include "server/update_once.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "fisherd/v1/factor_service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "tests/server/served_test.h"

namespace fisherd::server {
namespace {

class OnceOnly final
    : public v1::FactorService::WithCallbackMethod_UpdateOnce<v1::FactorService::Service> {
 public:
  OnceOnly(core::FactorRegistry& registry, OnceTable& calls) : registry_(registry), calls_(calls) {}
  grpc::ServerUnaryReactor* UpdateOnce(grpc::CallbackServerContext* context,
                                       const v1::UpdateOnceRequest* request,
                                       v1::UpdateOnceResponse* response) override {
    return server::UpdateOnce::Start(registry_, calls_, context, request, response);
  }

 private:
  core::FactorRegistry& registry_;
  OnceTable& calls_;
};

// A call in a thread of its own.
class Call {
 public:
  Call(v1::FactorService::Stub& stub, const v1::UpdateOnceRequest& request) {
    status_ = std::async(std::launch::async, [this, &stub, request] {
      return stub.UpdateOnce(&context_, request, &response_);
    });
  }
  ~Call() {
    if (status_.valid()) Cancel();
  }
  grpc::Status Await() { return status_.get(); }
  grpc::Status Cancel() {
    context_.TryCancel();
    return Await();
  }
  // The answer of a call that ends well.
  v1::UpdateOnceResponse Response() {
    const grpc::Status status = Await();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response_;
  }

 private:
  grpc::ClientContext context_;
  v1::UpdateOnceResponse response_;
  std::future<grpc::Status> status_;
};

class UpdateOnceTest : public ServedTest {
 protected:
  UpdateOnceTest() : service_(*registry_, calls_) { Serve(service_); }
  ~UpdateOnceTest() override {
    calls_.Shutdown();
    StopServing();
  }

  static v1::UpdateOnceRequest RequestOf(const v1::UpdateRequest& batch, int client) {
    v1::UpdateOnceRequest request;
    request.set_client_id(HelloMessage(client).hello().client_id());
    *request.mutable_header() = batch.header();
    *request.mutable_rows() = batch.rows();
    return request;
  }
  v1::UpdateOnceRequest Golden1(const std::string& factor, int64_t step, int tower = 0,
                                int client = 1) {
    return RequestOf(GoldenBatch(factor, step, tower), client);
  }
  grpc::Status Refused(const v1::UpdateOnceRequest& request) {
    return Call(*stub_, request).Await();
  }
  // Until the tower's batch is held.
  static void AwaitReceived(const core::Factor& factor, int tower, int64_t step) {
    while (factor.Describe().towers[tower].received_through < step) std::this_thread::yield();
  }
  static std::string Reason(const grpc::Status& status) {
    google::rpc::Status details;
    EXPECT_TRUE(details.ParseFromString(status.error_details()));
    return InfoOf(details).reason();
  }

  OnceTable calls_{4};
  OnceOnly service_;
};

TEST_F(UpdateOnceTest, AnswersHowItsStepHasEnded) {
  const auto factor = Create("f", Golden());
  for (int64_t step = 1; step <= 3; ++step) {
    const v1::UpdateOnceResponse response = Call(*stub_, Golden1("f", step)).Response();
    EXPECT_EQ(response.outcome(), v1::STEP_OUTCOME_WHOLE);
    EXPECT_EQ(response.progress().factor(), "f");
    EXPECT_EQ(response.progress().next(), step + 1);
  }
  EXPECT_EQ(factor->Describe().steps_committed, 3);
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
}

TEST_F(UpdateOnceTest, ARepeatIsCountedOnce) {
  const auto factor = Create("f", Golden());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Call(*stub_, Golden1("f", 1)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  }
  EXPECT_EQ(factor->Describe().steps_committed, 1);
}

TEST_F(UpdateOnceTest, SharesNoMemory) {
  Create("f", Golden());
  v1::UpdateOnceRequest request = Golden1("f", 1);
  request.mutable_rows()->mutable_shared()->set_size(32);
  const grpc::Status status = Refused(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(Reason(status), "BAD_ARGUMENT");
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("shared with streams only"));
}

TEST_F(UpdateOnceTest, WaitsForTheOtherTowers) {
  const auto factor = Create("f", Golden(2));
  Call first(*stub_, Golden1("f", 1, 0, /*client=*/1));
  AwaitReceived(*factor, 0, 1);
  Call second(*stub_, Golden1("f", 1, 1, /*client=*/2));
  EXPECT_EQ(first.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(second.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
}

TEST_F(UpdateOnceTest, StepsOfOneTowerWaitBesideEachOther) {
  const auto factor = Create("f", Golden(2));
  Call one(*stub_, Golden1("f", 1));
  AwaitReceived(*factor, 0, 1);
  Call two(*stub_, Golden1("f", 2));
  AwaitReceived(*factor, 0, 2);
  EXPECT_EQ(Call(*stub_, Golden1("f", 1, 1, 2)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(one.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_TRUE(factor->Describe().towers[0].claimed);
  EXPECT_EQ(Call(*stub_, Golden1("f", 2, 1, 2)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(two.Response().progress().next(), 3);
}

TEST_F(UpdateOnceTest, AStepThatOverflowsHasFailed) {
  Create("f", Golden());
  v1::UpdateRequest header = Header("f", 1);
  header.mutable_header()->set_weight(3e38);
  const v1::UpdateRequest batch = BatchMessage(header, golden_batch_);
  EXPECT_EQ(Call(*stub_, RequestOf(batch, 1)).Response().outcome(), v1::STEP_OUTCOME_FAILED);
}

TEST_F(UpdateOnceTest, AnswersBeforeItsDeadlineWithWhatIsKnown) {
  const auto factor = Create("f", Golden(2));
  grpc::Status status;
  v1::UpdateOnceResponse response;
  // The answer is sent in time, but a busy machine may be too slow to see it.
  for (int tries = 0; tries < 10; ++tries) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    status = stub_->UpdateOnce(&context, Golden1("f", 1), &response);
    if (status.ok()) break;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.outcome(), v1::STEP_OUTCOME_UNSPECIFIED);
  EXPECT_EQ(response.progress().next(), 1);
  // The batch has stayed.
  EXPECT_EQ(Call(*stub_, Golden1("f", 1, 1, 2)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(Call(*stub_, Golden1("f", 1)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(factor->Describe().steps_committed, 1);
}

TEST_F(UpdateOnceTest, RefusalsNameWhatTheyAreAbout) {
  Create("f", Golden());
  v1::UpdateOnceRequest request = Golden1("f", 1);
  request.set_client_id("short");
  grpc::Status status = Refused(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("client_id is 5 bytes"));

  request = Golden1("f", 1);
  request.mutable_header()->set_factor("g");
  EXPECT_EQ(Refused(request).error_code(), grpc::StatusCode::NOT_FOUND);

  request = Golden1("f", 1);
  request.mutable_rows()->set_crc32c(request.rows().crc32c() + 1);
  status = Refused(request);
  EXPECT_EQ(Reason(status), "CRC_MISMATCH");
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("factor \"f\""));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(InfoOf(details).metadata().at("tower"), "0");
  EXPECT_EQ(InfoOf(details).metadata().at("step"), "1");

  request = Golden1("f", 1);
  request.mutable_header()->set_tower(1);
  EXPECT_EQ(Refused(request).error_code(), grpc::StatusCode::OUT_OF_RANGE);
  request = Golden1("f", 1);
  request.clear_rows();
  EXPECT_EQ(Refused(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  // Nothing has changed.
  EXPECT_EQ(Call(*stub_, Golden1("f", 1)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
}

TEST_F(UpdateOnceTest, AnotherClientsTowerIsTakenOnlyIfToldTo) {
  const auto factor = Create("f", Golden(2));
  Call first(*stub_, Golden1("f", 1, 0, /*client=*/1));
  AwaitReceived(*factor, 0, 1);
  v1::UpdateOnceRequest other = Golden1("f", 1, 0, /*client=*/2);
  EXPECT_EQ(Reason(Refused(other)), "TOWER_CLAIMED");
  other.set_take_over(true);
  Call second(*stub_, other);
  EXPECT_EQ(Reason(first.Await()), "TOWER_CLAIMED");
  EXPECT_EQ(Call(*stub_, Golden1("f", 1, 1, 3)).Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(second.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
}

TEST_F(UpdateOnceTest, AResetAndADeletionEndIt) {
  const auto factor = Create("f", Golden(2));
  Call before_reset(*stub_, Golden1("f", 1));
  AwaitReceived(*factor, 0, 1);
  ASSERT_TRUE(registry_->Reset("f").ok());
  EXPECT_EQ(Reason(before_reset.Await()), "OLD_INCARNATION");
  Call before_deletion(*stub_, Golden1("f", 1));
  AwaitReceived(*factor, 0, 1);
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_EQ(Reason(before_deletion.Await()), "OLD_INCARNATION");
}

// Of a [64, 64] layer: 512 bytes a row.
TEST_F(UpdateOnceTest, WaitsForRoom) {
  const auto batch = [&](const std::string& factor, int64_t rows, int tower) {
    return BatchMessage(
        HeaderMessage(factor, Incarnation(factor), 1, rows, tower, /*inputs=*/64, /*outputs=*/64),
        Floats(rows * 128, 1));
  };
  const auto a = Create("a", Spec(64, 64, true, 2));
  const auto b = Create("b", Spec(64, 64));
  Call first(*stub_, RequestOf(batch("a", 600, 0), 1));
  AwaitReceived(*a, 0, 1);
  Call waits(*stub_, RequestOf(batch("b", 1200, 0), 1));
  while (!b->Describe().towers[0].claimed) std::this_thread::yield();
  EXPECT_EQ(b->Describe().held_batches, 0);
  Call second(*stub_, RequestOf(batch("a", 600, 1), 2));
  EXPECT_EQ(waits.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(first.Response().outcome(), v1::STEP_OUTCOME_WHOLE);
}

TEST_F(UpdateOnceTest, ACancelledCallHoldsNothing) {
  const auto factor = Create("f", Golden(2));
  Call call(*stub_, Golden1("f", 1));
  AwaitReceived(*factor, 0, 1);
  EXPECT_EQ(call.Cancel().error_code(), grpc::StatusCode::CANCELLED);
  while (factor->Describe().towers[0].claimed) std::this_thread::yield();
}

TEST_F(UpdateOnceTest, ThereAreNotTooManyAndTheyEndWithTheServer) {
  const auto factor = Create("f", Golden(5));
  std::vector<std::unique_ptr<Call>> calls;
  for (int tower = 0; tower < 4; ++tower) {
    calls.push_back(std::make_unique<Call>(*stub_, Golden1("f", 1, tower)));
    AwaitReceived(*factor, tower, 1);
  }
  EXPECT_EQ(Reason(Refused(Golden1("f", 1, 4))), "TOO_MANY_STREAMS");
  calls_.Shutdown();
  for (const auto& call : calls) EXPECT_EQ(Reason(call->Await()), "SHUTTING_DOWN");
  EXPECT_EQ(Reason(Refused(Golden1("f", 1, 4))), "SHUTTING_DOWN");
}

}  // namespace
}  // namespace fisherd::server
