// Multiply: every operator and layout against the dense diagonal product, in chunks of any size.

#include <cmath>
#include <thread>

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;

class MultiplyTest : public ServerTest {
 protected:
  static v1::MultiplyHeader HeaderOf(const v1::Operator& op = Covariance()) {
    v1::MultiplyHeader header;
    header.set_factor("f");
    *header.mutable_operator_() = op;
    return header;
  }

  // What the server answers to messages that are wrong somewhere.
  grpc::Status Send(const std::vector<v1::MultiplyRequest>& messages) {
    grpc::ClientContext context;
    const auto stream = stub().Multiply(&context);
    // Who multiplies reads while it writes, or both sides wait.
    std::thread reader([&] {
      v1::MultiplyResponse response;
      while (stream->Read(&response)) continue;
    });
    for (const v1::MultiplyRequest& message : messages) stream->Write(message);
    stream->WritesDone();
    reader.join();
    return stream->Finish();
  }

  static v1::MultiplyRequest Message(const v1::MultiplyHeader& header) {
    v1::MultiplyRequest message;
    *message.mutable_header() = header;
    return message;
  }
  static v1::MultiplyRequest Message(const v1::TensorChunk& chunk) {
    v1::MultiplyRequest message;
    *message.mutable_chunk() = chunk;
    return message;
  }
};

TEST_P(MultiplyTest, TheHeaderDescribesTheOperatorAndTheProduct) {
  CreateGolden("f");
  const MultiplyAnswer answer =
      MultiplyAll(stub(), HeaderOf(Cholesky(0.5)), {Values(6, 1)}, v1::DATA_TYPE_FLOAT32, 6);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.header.operator_().class_name(), "LinearOperatorDiag");
  EXPECT_EQ(answer.header.operator_().version().step(), 1);
  EXPECT_EQ(answer.header.operator_().damping(), 0.5);
  ASSERT_EQ(answer.header.tensors_size(), 1);
  EXPECT_THAT(answer.header.tensors(0).shape(), ElementsAre(3, 2));
  EXPECT_FLOAT_EQ(answer.tensors[0][0], std::sqrt(19.f));
}

TEST_P(MultiplyTest, ChunksOfAnySizeGiveTheSameProduct) {
  CreateGolden("f");
  const Values x = {1, 2, -3, 0.5, 0, 8};
  Values product(6);
  for (int i = 0; i < 6; ++i) product[i] = kGoldenCovariance[i] * x[i];
  for (int64_t chunk = 1; chunk <= 6; ++chunk) {
    const MultiplyAnswer answer =
        MultiplyAll(stub(), HeaderOf(), {x}, v1::DATA_TYPE_FLOAT32, chunk);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.tensors[0], product) << chunk;
  }
}

TEST_P(MultiplyTest, EveryOperatorIsItsDiagonalInEveryView) {
  CreateGolden("f");
  SetDamping("d", 0.25);
  for (const v1::Operator& op :
       {Covariance(), Matpower(-1, 0.5), Matpower(0.3, "d"), Cholesky(0.5), CholeskyInverse(0.5)}) {
    for (const v1::Layout layout : {v1::LAYOUT_IN_OUT, v1::LAYOUT_OUT_IN}) {
      for (const bool split : {false, true}) {
        v1::ReadRequest read = ReadOf("f", op);
        read.set_layout(layout);
        read.set_split_bias(split);
        read.set_dtype(v1::DATA_TYPE_FLOAT64);
        const ReadAnswer diagonal = ReadAll(stub(), read);
        ASSERT_TRUE(diagonal.status.ok());
        v1::MultiplyHeader header = HeaderOf(op);
        header.set_layout(layout);
        header.set_split_bias(split);
        header.set_dtype(v1::DATA_TYPE_FLOAT64);
        std::vector<Values> x;
        for (const Values& tensor : diagonal.tensors) {
          x.emplace_back(tensor.size());
          for (size_t i = 0; i < tensor.size(); ++i) x.back()[i] = 1.5 - double(i);
        }
        const MultiplyAnswer answer = MultiplyAll(stub(), header, x, v1::DATA_TYPE_FLOAT64, 3);
        ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
        ASSERT_EQ(answer.tensors.size(), x.size());
        for (size_t t = 0; t < x.size(); ++t) {
          for (size_t i = 0; i < x[t].size(); ++i) {
            EXPECT_DOUBLE_EQ(answer.tensors[t][i], diagonal.tensors[t][i] * x[t][i]);
          }
        }
      }
    }
  }
}

TEST_P(MultiplyTest, AllChunksSeeOneVersion) {
  const v1::FactorInfo factor = CreateGolden("f");
  grpc::ClientContext context;
  const auto stream = stub().Multiply(&context);
  v1::MultiplyResponse response;
  ASSERT_TRUE(stream->Write(Message(HeaderOf())));
  ASSERT_TRUE(stream->Read(&response));
  // A step commits between the header and the first chunk.
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  Batch batch = RawBatch(factor, 2, 0, 2, Values(4, 8), Values(4, 8));
  trainer.Send(batch);
  trainer.AwaitNext("f", 3);
  const std::string ones = Encode(Values(6, 1), v1::DATA_TYPE_FLOAT32);
  ASSERT_TRUE(stream->Write(Message(Chunk(0, 0, ones))));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(Decode(response.chunk().data(), v1::DATA_TYPE_FLOAT32), kGoldenCovariance);
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(Describe("f").pinned_bytes(), 0);
}

TEST_P(MultiplyTest, ManyFactorsInOneCallAreAnsweredInOrder) {
  const v1::FactorInfo f = CreateGolden("f");
  Create("g", LayerSpec(1, 2, /*has_bias=*/false));
  std::vector<v1::MultiplyRequest> messages;
  const auto add = [&](v1::MultiplyHeader header, const Values& x) {
    messages.push_back(Message(header));
    for (size_t i = 0; i < x.size(); ++i) {
      messages.push_back(Message(Chunk(0, i, Encode({x[i]}, v1::DATA_TYPE_FLOAT32))));
    }
  };
  add(HeaderOf(), Values(6, 2));
  v1::MultiplyHeader g = HeaderOf(Matpower(1, 0.5));
  g.set_factor("g");
  add(g, {4, 6});
  add(HeaderOf(Matpower(0, 0.5)), {1, 2, 3, 4, 5, 6});

  grpc::ClientContext context;
  const auto stream = stub().Multiply(&context);
  std::vector<std::string> headers;
  std::vector<Values> products;
  std::thread reader([&] {
    v1::MultiplyResponse response;
    while (stream->Read(&response)) {
      if (response.has_header()) {
        headers.push_back(response.header().tensors(0).ShortDebugString());
        products.emplace_back();
        continue;
      }
      const Values values = Decode(response.chunk().data(), v1::DATA_TYPE_FLOAT32);
      products.back().insert(products.back().end(), values.begin(), values.end());
    }
  });
  for (const v1::MultiplyRequest& message : messages) stream->Write(message);
  stream->WritesDone();
  reader.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(headers.size(), 3);
  Values doubled = kGoldenCovariance;
  for (double& value : doubled) value *= 2;
  EXPECT_THAT(products, ElementsAre(doubled, Values{2, 3}, Values{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Describe("f").pinned_bytes(), 0);
}

TEST_P(MultiplyTest, AnErrorNamesTheFactorThatIsMeant) {
  CreateGolden("f");
  v1::MultiplyHeader unknown = HeaderOf();
  unknown.set_factor("unknown");
  const auto all = Message(Chunk(0, 0, Encode(Values(6, 1), v1::DATA_TYPE_FLOAT32)));
  EXPECT_THAT(Send({Message(HeaderOf()), all, Message(unknown), all}),
              IsRpcError(StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "\"unknown\""));
}

TEST_P(MultiplyTest, WaitsForItsStep) {
  const v1::FactorInfo factor = CreateGolden("f");
  v1::MultiplyHeader header = HeaderOf();
  header.mutable_min_version()->set_incarnation(factor.version().incarnation());
  header.mutable_min_version()->set_step(2);
  grpc::ClientContext context;
  const auto stream = stub().Multiply(&context);
  ASSERT_TRUE(stream->Write(Message(header)));
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  trainer.Send(GoldenBatch(factor, 2));
  v1::MultiplyResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.header().operator_().version().step(), 2);
  context.TryCancel();
  while (stream->Read(&response)) continue;
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_P(MultiplyTest, WhatIsMalformedIsRefused) {
  CreateGolden("f");
  const std::string before = Describe("f").DebugString();
  const std::string x = Encode(Values(6, 1), v1::DATA_TYPE_FLOAT32);
  v1::TensorChunk damaged = Chunk(0, 0, x);
  damaged.set_crc32c(damaged.crc32c() + 1);
  const auto header = Message(HeaderOf());
  const auto all = Message(Chunk(0, 0, x));
  const auto first = Message(Chunk(0, 0, x.substr(0, 8)));
  struct Case {
    std::vector<v1::MultiplyRequest> messages;
    const char* message;
  };
  const Case cases[] = {
      {{}, "ended before its header"},
      {{all}, "the first message has no header"},
      {{v1::MultiplyRequest()}, "the first message has no header"},
      {{header, header}, "before the last chunk"},
      {{header, all, all}, "no header follows the last chunk"},
      {{header, all, header, first}, "ended at element 2 of tensor 0; expected 4 more"},
      {{header}, "ended at element 0 of tensor 0; expected 6 more"},
      {{header, first}, "ended at element 2 of tensor 0; expected 4 more"},
      {{header, first, first}, "begins at element 0 of tensor 0; expected element 2"},
      {{header, Message(Chunk(1, 0, x))}, "begins at element 0 of tensor 1"},
      {{header, Message(Chunk(0, 0, x + x))}, "has 12 elements; the tensor has 6 left"},
      {{header, Message(Chunk(0, 0, x.substr(0, 7)))}, "has 7 bytes; expected whole elements"},
      {{header, Message(Chunk(0, 0, ""))}, "has 0 bytes"},
      {{header, Message(Chunk(0, 0, std::string((1 << 20) + 4, 'x')))}, "at most 1048576 bytes"},
      {{header, Message(damaged)}, "came with crc32c"},
      {{header, all, v1::MultiplyRequest()}, "no header follows the last chunk"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(Send(c.messages),
                IsRpcError(StatusCode::INVALID_ARGUMENT, "MALFORMED_FRAME", c.message));
  }
  EXPECT_EQ(Describe("f").DebugString(), before);
}

TEST_P(MultiplyTest, NumbersThatAreNotFiniteAreNotServed) {
  CreateGolden("f");
  const auto send = [&](double x) {
    return Send(
        {Message(HeaderOf()), Message(Chunk(0, 0, Encode(Values(6, x), v1::DATA_TYPE_FLOAT32)))});
  };
  EXPECT_THAT(send(std::nan("")),
              IsRpcError(StatusCode::INVALID_ARGUMENT, "NON_FINITE_INPUT", "factor \"f\": "));
  EXPECT_THAT(send(3e38),
              IsRpcError(StatusCode::FAILED_PRECONDITION, "NON_FINITE_RESULT", "factor \"f\": "));
}

FISHERD_ON_EVERY_TRANSPORT(MultiplyTest);

}  // namespace
}  // namespace fisherd::server
