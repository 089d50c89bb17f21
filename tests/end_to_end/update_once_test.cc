// UpdateOnce: the same bits as by a stream, and beside one.

#include <thread>

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;

class UpdateOnceTest : public ServerTest {
 protected:
  static v1::UpdateOnceRequest RequestOf(const Batch& batch) {
    const v1::UpdateRequest frame = OneFrame(batch);
    v1::UpdateOnceRequest request;
    request.set_client_id(std::string(16, 'u'));
    *request.mutable_header() = frame.header();
    *request.mutable_rows() = frame.rows();
    return request;
  }
  grpc::Status UpdateOnce(const Batch& batch, v1::UpdateOnceResponse* response) {
    return Call(&v1::FactorService::Stub::UpdateOnce, RequestOf(batch), response);
  }
};

TEST_P(UpdateOnceTest, TheGoldenBatch) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  v1::UpdateOnceResponse response;
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(UpdateOnce(GoldenBatch(factor), &response).ok());
    EXPECT_EQ(response.outcome(), v1::STEP_OUTCOME_WHOLE);
    EXPECT_EQ(response.progress().next(), 2);
  }
  EXPECT_THAT(ReadAll(stub(), ReadOf("f")).tensors, ElementsAre(kGoldenCovariance));
}

TEST_P(UpdateOnceTest, OneTowerByItAndOneByAStream) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2, true, 2));
  Trainer trainer(stub(), 1);
  trainer.Claim("f", 1);
  trainer.Send(GoldenBatch(factor, 1, 1));
  v1::UpdateOnceResponse response;
  ASSERT_TRUE(UpdateOnce(GoldenBatch(factor, 1, 0), &response).ok());
  EXPECT_EQ(response.outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(trainer.AwaitNext("f", 2).next(), 2);
  EXPECT_THAT(ReadAll(stub(), ReadOf("f")).tensors, ElementsAre(kGoldenCovariance));
}

// With an hour of grace, whoever had to be waited for would hang this test.
TEST_P(UpdateOnceTest, ShutdownEndsIt) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2, true, 2));
  grpc::Status status;
  std::thread caller([&] {
    v1::UpdateOnceResponse response;
    status = UpdateOnce(GoldenBatch(factor), &response);
  });
  while (Describe("f").towers(0).received_through() < 1) std::this_thread::yield();
  server_->Shutdown(absl::Hours(1));
  caller.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE) << status.error_message();
}

FISHERD_ON_EVERY_TRANSPORT(UpdateOnceTest);

}  // namespace
}  // namespace fisherd::server
