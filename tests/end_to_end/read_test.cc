// Read: layouts, types, chunks, versions, waiting, and what a reader that stops is told.

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;
using ::testing::Each;
using ::testing::ElementsAre;

class ReadTest : public ServerTest {
 protected:
  // A large factor's step whose every element is `value`: A = ones, G = √value, no bias.
  static Batch UniformBatch(const v1::FactorInfo& factor, int64_t step, double root) {
    const v1::FullyConnectedDiagonal& layer = factor.spec().fully_connected_diagonal();
    Batch batch = RawBatch(factor, step, 0, 1, Values(layer.input_size(), 1),
                           Values(layer.output_size(), root));
    batch.header.set_decay(0);
    return batch;
  }
};

TEST_P(ReadTest, TheHeaderSaysWhatWasRead) {
  const v1::FactorInfo factor = CreateGolden("f");
  const ReadAnswer answer = ReadAll(stub(), ReadOf("f", Matpower(-1, 0.5)));
  ASSERT_TRUE(answer.status.ok());
  const v1::OperatorInfo& info = answer.header.operator_();
  EXPECT_EQ(info.class_name(), "LinearOperatorDiag");
  EXPECT_EQ(info.range_dimension(), 6);
  EXPECT_EQ(info.domain_dimension(), 6);
  EXPECT_EQ(info.version().SerializeAsString(), factor.version().SerializeAsString());
  EXPECT_EQ(info.current_version().SerializeAsString(), factor.version().SerializeAsString());
  EXPECT_EQ(info.steps_committed(), 1);
  EXPECT_EQ(info.next(), 2);
  EXPECT_EQ(info.total_weight(), 0.5);
  EXPECT_EQ(info.damping(), 0.5);
  EXPECT_FALSE(info.cached());
  EXPECT_FALSE(answer.header.unchanged());
  ASSERT_EQ(answer.header.tensors_size(), 1);
  EXPECT_EQ(answer.header.tensors(0).role(), v1::TENSOR_ROLE_RESULT);
  EXPECT_THAT(answer.header.tensors(0).shape(), ElementsAre(3, 2));
}

TEST_P(ReadTest, LayoutsAndTheBiasApart) {
  CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  request.set_layout(v1::LAYOUT_OUT_IN);
  ReadAnswer answer = ReadAll(stub(), request);
  EXPECT_THAT(answer.header.tensors(0).shape(), ElementsAre(2, 3));
  EXPECT_THAT(answer.tensors, ElementsAre(ElementsAre(18.5, 34, 2.5, 1.625, 4, 0.625)));
  request.set_split_bias(true);
  answer = ReadAll(stub(), request);
  EXPECT_EQ(answer.header.tensors(0).role(), v1::TENSOR_ROLE_WEIGHT);
  EXPECT_EQ(answer.header.tensors(1).role(), v1::TENSOR_ROLE_BIAS);
  EXPECT_THAT(answer.tensors,
              ElementsAre(ElementsAre(18.5, 34, 1.625, 4), ElementsAre(2.5, 0.625)));
  request.set_layout(v1::LAYOUT_IN_OUT);
  EXPECT_THAT(ReadAll(stub(), request).tensors,
              ElementsAre(ElementsAre(18.5, 1.625, 34, 4), ElementsAre(2.5, 0.625)));
}

// 3.1 MB: three whole chunks and a part of one; awkward sizes.
TEST_P(ReadTest, ALargeTensorComesInChunks) {
  const v1::FactorInfo factor = Create("f", LayerSpec(1021, 769));
  Values inputs(1021), grads(769);
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i] = i % 13;
  for (size_t o = 0; o < grads.size(); ++o) grads[o] = o % 11;
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(RawBatch(factor, 1, 0, 1, inputs, grads));
  trainer.AwaitNext("f", 2);
  for (const bool split : {false, true}) {
    v1::ReadRequest request = ReadOf("f");
    request.set_split_bias(split);
    const ReadAnswer answer = ReadAll(stub(), request);
    ASSERT_TRUE(answer.status.ok());
    Values all = answer.tensors[0];
    if (split) all.insert(all.end(), answer.tensors[1].begin(), answer.tensors[1].end());
    ASSERT_EQ(all.size(), 1022 * 769);
    for (size_t i = 0; i < all.size(); ++i) {
      const double a = i / 769 < 1021 ? inputs[i / 769] : 1;
      const double g = grads[i % 769];
      ASSERT_EQ(all[i], a * a * g * g) << i;
    }
  }
}

TEST_P(ReadTest, AnUnchangedValueComesWithoutItsBytes) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  *request.mutable_if_version_not() = factor.version();
  const ReadAnswer unchanged = ReadAll(stub(), request);
  EXPECT_TRUE(unchanged.status.ok());
  EXPECT_TRUE(unchanged.header.unchanged());
  EXPECT_EQ(unchanged.header.tensors_size(), 0);
  EXPECT_EQ(unchanged.header.operator_().version().step(), 1);
  // All three must be the same.
  request.mutable_if_version_not()->set_epoch(factor.version().epoch() + 1);
  const ReadAnswer other = ReadAll(stub(), request);
  EXPECT_FALSE(other.header.unchanged());
  EXPECT_EQ(other.tensors[0], kGoldenCovariance);
}

TEST_P(ReadTest, AReadWaitsForItsStep) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  request.mutable_min_version()->set_incarnation(factor.version().incarnation());
  request.mutable_min_version()->set_step(3);
  std::atomic<bool> answered = false;
  ReadAnswer answer;
  std::thread reader([&] {
    answer = ReadAll(stub(), request);
    answered = true;
  });
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(GoldenBatch(factor, 2));
  trainer.AwaitNext("f", 3);
  EXPECT_FALSE(answered);
  trainer.Send(GoldenBatch(factor, 3));
  reader.join();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_GE(answer.header.operator_().version().step(), 3);
}

TEST_P(ReadTest, AReadThatWaitsTooLongEndsAtItsDeadline) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  request.mutable_min_version()->set_incarnation(factor.version().incarnation());
  request.mutable_min_version()->set_step(2);
  const ReadAnswer answer = ReadAll(stub(), request, absl::Milliseconds(50));
  EXPECT_EQ(answer.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  // Nothing of it is left to disturb the next step.
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(GoldenBatch(factor, 2));
  trainer.AwaitNext("f", 3);
  EXPECT_TRUE(ReadAll(stub(), request).status.ok());
}

TEST_P(ReadTest, AReadThatWaitsCanBeCancelled) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  request.mutable_min_version()->set_incarnation(factor.version().incarnation());
  request.mutable_min_version()->set_step(2);
  grpc::ClientContext context;
  const auto stream = stub().Read(&context, request);
  context.TryCancel();
  v1::ReadResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_P(ReadTest, EveryReadSeesOneVersionWhole) {
  const v1::FactorInfo factor = Create("f", LayerSpec(600, 900, /*has_bias=*/false));
  constexpr int64_t kSteps = 20;
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      int64_t last = 0;
      while (!done) {
        const ReadAnswer answer = ReadAll(stub(), ReadOf("f"));
        ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
        const int64_t step = answer.header.operator_().version().step();
        // decay 0: the value is the last step's own, its number squared.
        ASSERT_THAT(answer.tensors[0], Each(static_cast<double>(step * step)));
        ASSERT_GE(answer.header.operator_().current_version().step(), step);
        last = std::max(last, step);
      }
    });
  }
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  for (int64_t step = 1; step <= kSteps; ++step) {
    trainer.Send(UniformBatch(factor, step, step));
    trainer.AwaitNext("f", step + 1);
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(Describe("f").pinned_bytes(), 0);
  EXPECT_THAT(ReadAll(stub(), ReadOf("f")).tensors[0], Each(double{kSteps * kSteps}));
}

class ReadStallTest : public ReadTest {
 protected:
  ReadStallTest() { options_.read_stall_timeout = absl::Milliseconds(50); }
};

// The reader takes the header and stops. Its version goes, and when it reads on it is told.
TEST_P(ReadStallTest, AReaderThatStopsIsTold) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2048, 2048, /*has_bias=*/false));
  grpc::ClientContext context;
  const auto stream = stub().Read(&context, ReadOf("f"));
  v1::ReadResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.has_header());
  // The next step would be written beside a version that is still pinned.
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(UniformBatch(factor, 1, 1));
  trainer.AwaitNext("f", 2);
  while (Describe("f").pinned_bytes() > 0) absl::SleepFor(absl::Milliseconds(1));

  int chunks = 0;
  while (stream->Read(&response)) ++chunks;
  EXPECT_LT(chunks, 16);
  const grpc::Status status = stream->Finish();
  EXPECT_THAT(status, IsRpcError(StatusCode::DEADLINE_EXCEEDED, "READ_STALLED", "stood still"));
  EXPECT_EQ(ErrorInfoOf(RpcStatusOf(status)).metadata().at("factor"), "f");
}

TEST_P(ReadStallTest, AMultiplierThatStopsIsTold) {
  CreateGolden("f");
  grpc::ClientContext context;
  const auto stream = stub().Multiply(&context);
  v1::MultiplyRequest request;
  request.mutable_header()->set_factor("f");
  *request.mutable_header()->mutable_operator_() = Covariance();
  ASSERT_TRUE(stream->Write(request));
  v1::MultiplyResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_THAT(stream->Finish(),
              IsRpcError(StatusCode::DEADLINE_EXCEEDED, "READ_STALLED", "stood still"));
}

// A wait for a step is no stall.
TEST_P(ReadStallTest, AReadThatWaitsDoesNotStall) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::ReadRequest request = ReadOf("f");
  request.mutable_min_version()->set_incarnation(factor.version().incarnation());
  request.mutable_min_version()->set_step(2);
  std::thread sender([&] {
    absl::SleepFor(4 * options_.read_stall_timeout);
    Trainer trainer(stub(), 1);
    trainer.Claim("f");
    trainer.Send(GoldenBatch(factor, 2));
    trainer.AwaitNext("f", 3);
  });
  const ReadAnswer answer = ReadAll(stub(), request);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  sender.join();
}

FISHERD_ON_EVERY_TRANSPORT(ReadTest);
FISHERD_ON_EVERY_TRANSPORT(ReadStallTest);

}  // namespace
}  // namespace fisherd::server
