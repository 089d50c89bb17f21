// Reads and products, through the client, against a server that the test plays.

#include "client/cpp/tensor_transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <limits>
#include <memory>

#include "client/cpp/chunks.h"
#include "client/cpp/crc32c.h"
#include "fisherd/client.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

v1::TensorSpec Tensor(v1::TensorRole role, v1::DataType dtype, std::vector<int64_t> shape) {
  v1::TensorSpec tensor;
  tensor.set_role(role);
  tensor.set_dtype(dtype);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

google::protobuf::RepeatedPtrField<v1::TensorSpec> Tensors(
    const std::vector<v1::TensorSpec>& tensors) {
  return {tensors.begin(), tensors.end()};
}

TEST(CheckTensorsTest, TakesAWeightAndPerhapsABias) {
  const auto weight = Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {3, 2});
  const auto bias = Tensor(v1::TENSOR_ROLE_BIAS, v1::DATA_TYPE_FLOAT32, {2});
  const auto shape = CheckTensors(Tensors({weight, bias}), v1::DATA_TYPE_FLOAT32);
  ASSERT_TRUE(shape.ok());
  EXPECT_EQ(shape->size(), 8);
  EXPECT_EQ(shape->bias_size, 2);
  EXPECT_EQ(CheckTensors(Tensors({weight}), v1::DATA_TYPE_FLOAT32)->size(), 6);
}

TEST(CheckTensorsTest, TakesNothingElse) {
  const auto weight = Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {3, 2});
  const auto bias = Tensor(v1::TENSOR_ROLE_BIAS, v1::DATA_TYPE_FLOAT32, {2});
  const auto max = std::numeric_limits<int64_t>::max();
  const std::vector<std::vector<v1::TensorSpec>> wrong = {
      {},
      {bias, weight},
      {weight, bias, bias},
      {weight, weight},
      {Tensor(v1::TENSOR_ROLE_RESULT, v1::DATA_TYPE_FLOAT32, {3, 2})},
      {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT64, {3, 2})},
      {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {3})},
      {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {0, 2})},
      {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {max, max})},
      {weight, Tensor(v1::TENSOR_ROLE_BIAS, v1::DATA_TYPE_FLOAT32, {-1})},
  };
  for (const auto& tensors : wrong) {
    const absl::Status status = CheckTensors(Tensors(tensors), v1::DATA_TYPE_FLOAT32).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(ErrorReason(status), "MALFORMED_FRAME");
  }
}

// The answer for weight [[1, 2], [3, 4], [5, 6]] and bias [7, 8], a message an entry.
template <typename Scalar>
std::vector<v1::ReadResponse> Answer() {
  std::vector<v1::ReadResponse> answer(1);
  v1::ReadHeader& header = *answer[0].mutable_header();
  header.mutable_operator_()->set_class_name("LinearOperatorDiag");
  header.mutable_operator_()->mutable_version()->set_step(4);
  header.mutable_operator_()->set_steps_committed(4);
  *header.add_tensors() = Tensor(v1::TENSOR_ROLE_WEIGHT, kDataTypeOf<Scalar>, {3, 2});
  *header.add_tensors() = Tensor(v1::TENSOR_ROLE_BIAS, kDataTypeOf<Scalar>, {2});
  const std::vector<Scalar> elements = {1, 2, 3, 4, 5, 6, 7, 8};
  for (const auto [tensor, first, at, count] :
       {std::array{0, 0, 0, 4}, {0, 4, 4, 2}, {1, 0, 6, 2}}) {
    v1::TensorChunk& chunk = *answer.emplace_back().mutable_chunk();
    chunk.set_tensor(tensor);
    chunk.set_first_element(first);
    chunk.set_data(&elements[at], count * sizeof(Scalar));
    chunk.set_crc32c(Crc32c(chunk.data()));
  }
  return answer;
}

class ReadTest : public testing::Test {
 protected:
  // An abandoned call may still be playing the answer before, so the server's part is set once.
  ReadTest() {
    server_.on_read = [this](const v1::ReadRequest& request,
                             grpc::ServerWriter<v1::ReadResponse>& writer) {
      request_.Set(request);
      for (const v1::ReadResponse& response : answer_.Get()) writer.Write(response);
      return grpc::Status::OK;
    };
  }
  void Play(const std::vector<v1::ReadResponse>& answer) { answer_.Set(answer); }
  void ExpectDataLoss(const std::vector<v1::ReadResponse>& answer, const char* reason,
                      const char* message) {
    Play(answer);
    const absl::Status status = client_.Read("f", Covariance()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_EQ(ErrorReason(status), reason);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }

  Shared<std::vector<v1::ReadResponse>> answer_;
  Shared<v1::ReadRequest> request_;
  FakeServer server_;
  Client client_ = server_.Connect();
};

TEST_F(ReadTest, GivesAnOperator) {
  Play(Answer<float>());
  std::vector<std::pair<int64_t, int64_t>> progress;
  const auto reading = client_.Read(
      "f", Matpower(-0.5, "global"),
      {.layout = v1::LAYOUT_OUT_IN,
       .min_version = MinVersion{.incarnation = 7, .step = 4},
       .progress = [&](int64_t done, int64_t total) { progress.emplace_back(done, total); }});
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_FALSE(reading->unchanged);
  EXPECT_EQ(reading->version().step(), 4);
  EXPECT_EQ(reading->steps_committed(), 4);
  EXPECT_EQ(reading->value.weight(), (Matrix<float>{{1, 2}, {3, 4}, {5, 6}}));
  EXPECT_EQ(reading->value.bias(), (Vector<float>{{7, 8}}));
  EXPECT_EQ(progress, (std::vector<std::pair<int64_t, int64_t>>{{16, 32}, {24, 32}, {32, 32}}));
  EXPECT_EQ(request_.Get().factor(), "f");
  EXPECT_EQ(request_.Get().operator_().matpower().damping().name(), "global");
  EXPECT_EQ(request_.Get().layout(), v1::LAYOUT_OUT_IN);
  EXPECT_TRUE(request_.Get().split_bias());
  EXPECT_EQ(request_.Get().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(request_.Get().min_version().incarnation(), 7u);
  EXPECT_EQ(request_.Get().min_version().step(), 4);
  EXPECT_FALSE(request_.Get().has_if_version_not());
}

TEST_F(ReadTest, InDouble) {
  Play(Answer<double>());
  const auto reading = client_.Read<double>("f", Covariance());
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_EQ(request_.Get().dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_EQ(reading->value.diag_part(), Vector<double>::LinSpaced(8, 1, 8));
}

TEST_F(ReadTest, UnchangedHasNoValue) {
  std::vector<v1::ReadResponse> answer(1);
  answer[0].mutable_header()->set_unchanged(true);
  answer[0].mutable_header()->mutable_operator_()->mutable_version()->set_step(4);
  Play(answer);
  v1::Version known;
  known.set_step(4);
  const auto reading = client_.Read("f", Covariance(), {.if_version_not = known});
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_TRUE(reading->unchanged);
  EXPECT_EQ(reading->version().step(), 4);
  EXPECT_EQ(reading->value.shape().first, 0);
  EXPECT_EQ(request_.Get().if_version_not().step(), 4);
}

TEST_F(ReadTest, ADamagedAnswerIsAnError) {
  auto answer = Answer<float>();
  std::swap(answer[1], answer[2]);
  ExpectDataLoss(answer, "MALFORMED_FRAME", "begins at element 4 of tensor 0, expected element 0");

  answer = Answer<float>();
  answer[2].mutable_chunk()->set_crc32c(0);
  ExpectDataLoss(answer, "CRC_MISMATCH", "element 4 of tensor 0 was damaged");

  answer = Answer<float>();
  answer.pop_back();
  ExpectDataLoss(answer, "MALFORMED_FRAME", "ended after 24 of 32 bytes");

  answer = Answer<float>();
  answer.push_back(answer.back());
  ExpectDataLoss(answer, "MALFORMED_FRAME", "after the last element");

  answer = Answer<float>();
  answer.erase(answer.begin());
  ExpectDataLoss(answer, "MALFORMED_FRAME", "does not begin with a header");

  answer = Answer<float>();
  answer.insert(answer.begin() + 1, answer[0]);
  ExpectDataLoss(answer, "MALFORMED_FRAME", "not a chunk");

  ExpectDataLoss(Answer<double>(), "MALFORMED_FRAME", "DATA_TYPE_FLOAT32");
  ExpectDataLoss({}, "MALFORMED_FRAME", "empty");
}

TEST_F(ReadTest, TheServersErrorIsTheAnswerAlsoAmidATransfer) {
  server_.on_read = [](const v1::ReadRequest&, grpc::ServerWriter<v1::ReadResponse>& writer) {
    writer.Write(Answer<float>()[0]);
    writer.Write(Answer<float>()[1]);
    return Error(grpc::StatusCode::DEADLINE_EXCEEDED, "READ_STALLED", "stood still");
  };
  const absl::Status status = client_.Read("f", Covariance()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ErrorReason(status), "READ_STALLED");
}

TEST_F(ReadTest, HasADeadline) {
  const auto gate = std::make_shared<std::latch>(1);
  server_.on_read = [gate](const v1::ReadRequest&, grpc::ServerWriter<v1::ReadResponse>&) {
    gate->wait();
    return grpc::Status::OK;
  };
  EXPECT_EQ(client_.Read("f", Covariance(), {.timeout = absl::Milliseconds(20)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  gate->count_down();
}

// Doubles x, chunk for chunk, as the contract says.
grpc::Status Double(FakeServer::MultiplyCall& call, const std::vector<v1::TensorSpec>& tensors,
                    Shared<v1::MultiplyHeader>& header, Shared<int>& chunks) {
  v1::MultiplyRequest request;
  call.Read(&request);
  header.Set(request.header());
  v1::MultiplyResponse response;
  *response.mutable_header()->mutable_tensors() = Tensors(tensors);
  response.mutable_header()->mutable_operator_()->set_steps_committed(9);
  call.Write(response);
  while (call.Read(&request)) {
    chunks.Set(chunks.Get() + 1);
    v1::TensorChunk& chunk = *response.mutable_chunk();
    chunk = request.chunk();
    std::vector<float> elements(chunk.data().size() / sizeof(float));
    std::memcpy(elements.data(), chunk.data().data(), chunk.data().size());
    for (float& element : elements) element *= 2;
    chunk.set_data(elements.data(), elements.size() * sizeof(float));
    chunk.set_crc32c(Crc32c(chunk.data()));
    call.Write(response);
  }
  return grpc::Status::OK;
}

TEST(MultiplyTest, SendsChunksAndAssemblesTheProduct) {
  FakeServer server;
  Client client = server.Connect();
  const Matrix<float> weight = Matrix<float>::Random(3000, 700);  // 8.01 MiB: nine chunks
  const Vector<float> bias = Vector<float>::Random(700);
  Shared<v1::MultiplyHeader> header;
  Shared<int> chunks;
  server.on_multiply = [&](FakeServer::MultiplyCall& call) {
    return Double(call,
                  {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {3000, 700}),
                   Tensor(v1::TENSOR_ROLE_BIAS, v1::DATA_TYPE_FLOAT32, {700})},
                  header, chunks);
  };
  const auto product = client.Multiply("f", Matpower(-1, 0.5), weight, bias,
                                       {.min_version = MinVersion{.incarnation = 7, .step = 2}});
  ASSERT_TRUE(product.ok()) << product.status();
  EXPECT_EQ(product->weight, 2 * weight);
  EXPECT_EQ(product->bias, 2 * bias);
  EXPECT_EQ(product->info.steps_committed(), 9);
  EXPECT_EQ(chunks.Get(), 10);
  EXPECT_EQ(header.Get().factor(), "f");
  EXPECT_EQ(header.Get().operator_().matpower().exponent(), -1);
  EXPECT_EQ(header.Get().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_TRUE(header.Get().split_bias());
  EXPECT_EQ(header.Get().min_version().step(), 2);
}

TEST(MultiplyTest, WithoutABias) {
  FakeServer server;
  Client client = server.Connect();
  Shared<v1::MultiplyHeader> header;
  Shared<int> chunks;
  server.on_multiply = [&](FakeServer::MultiplyCall& call) {
    return Double(call, {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {2, 3})}, header,
                  chunks);
  };
  const Matrix<float> weight = Matrix<float>::Random(2, 3);
  const auto product = client.Multiply("f", Covariance(), weight);
  ASSERT_TRUE(product.ok()) << product.status();
  EXPECT_EQ(product->weight, 2 * weight);
  EXPECT_EQ(product->bias.size(), 0);
  EXPECT_EQ(chunks.Get(), 1);
}

// Answers each header with tensors of its factor's shape, and each chunk with itself.
grpc::Status Echo(FakeServer::MultiplyCall& call, Shared<std::vector<v1::MultiplyHeader>>& headers,
                  int products) {
  v1::MultiplyRequest request;
  v1::MultiplyResponse response;
  while (call.Read(&request)) {
    if (request.has_header()) {
      auto seen = headers.Get();
      seen.push_back(request.header());
      headers.Set(seen);
      if (--products < 0) return grpc::Status::OK;
      const int64_t rows = request.header().factor() == "a" ? 3 : 700;
      *response.mutable_header()->mutable_tensors() =
          Tensors({Tensor(v1::TENSOR_ROLE_WEIGHT, request.header().dtype(), {rows, 500}),
                   Tensor(v1::TENSOR_ROLE_BIAS, request.header().dtype(), {500})});
      response.mutable_header()->mutable_operator_()->set_steps_committed(rows);
    } else {
      *response.mutable_chunk() = request.chunk();
    }
    call.Write(response);
  }
  return grpc::Status::OK;
}

TEST(MultiplyAllTest, CarriesManyFactorsInOneCall) {
  FakeServer server;
  Client client = server.Connect();
  Shared<std::vector<v1::MultiplyHeader>> headers;
  server.on_multiply = [&](FakeServer::MultiplyCall& call) { return Echo(call, headers, 3); };
  // The weight above, the bias below: views of one matrix.
  const Matrix<double> a = Matrix<double>::Random(4, 500);
  const Matrix<double> b = Matrix<double>::Random(701, 500);
  const std::vector<MultiplyItem> items = {
      {.factor = "a", .op = Covariance(), .weight = a.topRows(3), .bias = a.bottomRows<1>()},
      {.factor = "b",
       .op = Matpower(-1, 0.5),
       .weight = b.topRows(700),
       .bias = b.bottomRows<1>(),
       .layout = v1::LAYOUT_OUT_IN,
       .min_version = MinVersion{.incarnation = 7, .step = 2}},
      {.factor = "a", .op = Covariance(), .weight = a.bottomRows(3), .bias = a.topRows<1>()}};
  const auto products = client.MultiplyAll<double>(items);
  ASSERT_TRUE(products.ok()) << products.status();
  ASSERT_EQ(products->size(), 3);
  EXPECT_EQ((*products)[0].weight, a.topRows(3));
  EXPECT_EQ((*products)[0].bias, a.row(3).transpose());
  EXPECT_EQ((*products)[0].info.steps_committed(), 3);
  EXPECT_EQ((*products)[1].weight, b.topRows(700));
  EXPECT_EQ((*products)[1].info.steps_committed(), 700);
  EXPECT_EQ((*products)[2].weight, a.bottomRows(3));
  ASSERT_EQ(headers.Get().size(), 3);
  EXPECT_EQ(headers.Get()[1].factor(), "b");
  EXPECT_EQ(headers.Get()[1].layout(), v1::LAYOUT_OUT_IN);
  EXPECT_EQ(headers.Get()[1].min_version().step(), 2);
  EXPECT_FALSE(headers.Get()[2].has_min_version());
}

TEST(MultiplyAllTest, FewerProductsThanItemsAreAnError) {
  FakeServer server;
  Client client = server.Connect();
  Shared<std::vector<v1::MultiplyHeader>> headers;
  server.on_multiply = [&](FakeServer::MultiplyCall& call) { return Echo(call, headers, 1); };
  const Matrix<float> a = Matrix<float>::Random(4, 500);
  const MultiplyItem item = {
      .factor = "a", .op = Covariance(), .weight = a.topRows(3), .bias = a.bottomRows<1>()};
  const absl::Status status = client.MultiplyAll(std::vector{item, item}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("after 1 of 2 products"));
}

TEST(MultiplyAllTest, NothingIsNoCallAndWhatCannotTravelIsRefused) {
  FakeServer server;
  Client client = server.Connect();
  EXPECT_TRUE(client.MultiplyAll({})->empty());
  const Matrix<float> a = Matrix<float>::Random(4, 500);
  for (const MatrixView& weight : {MatrixView(a.leftCols(3)), MatrixView()}) {
    const std::vector<MultiplyItem> items = {{.factor = "a", .op = Covariance(), .weight = weight}};
    const absl::Status status = client.MultiplyAll(items).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("factor \"a\""));
  }
  const std::vector<MultiplyItem> items = {{.factor = "a", .op = Covariance(), .weight = a}};
  EXPECT_EQ(client.MultiplyAll<double>(items).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MultiplyTest, TheServersErrorIsTheAnswer) {
  FakeServer server;
  Client client = server.Connect();
  server.on_multiply = [](FakeServer::MultiplyCall&) {
    return Error(grpc::StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "no such factor");
  };
  const Matrix<double> weight = Matrix<double>::Zero(2000, 1000);
  const absl::Status status = client.Multiply("f", Covariance(), weight).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(status), "FACTOR_NOT_FOUND");
}

TEST(MultiplyTest, AShortProductIsAnError) {
  FakeServer server;
  Client client = server.Connect();
  Shared<v1::MultiplyHeader> header;
  Shared<int> chunks;
  server.on_multiply = [&](FakeServer::MultiplyCall& call) {
    return Double(call, {Tensor(v1::TENSOR_ROLE_WEIGHT, v1::DATA_TYPE_FLOAT32, {5, 3})}, header,
                  chunks);
  };
  const Matrix<float> weight = Matrix<float>::Random(2, 3);
  const absl::Status status = client.Multiply("f", Covariance(), weight).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("ended after 24 of 60 bytes"));
}

}  // namespace
}  // namespace fisherd
