#include "client/cpp/chunks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "client/cpp/crc32c.h"
#include "fisherd/status.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

v1::TensorChunk Chunk(int tensor, int64_t first, const std::vector<float>& values) {
  v1::TensorChunk chunk;
  chunk.set_tensor(tensor);
  chunk.set_first_element(first);
  chunk.set_data(values.data(), values.size() * sizeof(float));
  chunk.set_crc32c(Crc32c(chunk.data()));
  return chunk;
}

class ChunkAssemblerTest : public testing::Test {
 protected:
  void ExpectDamage(const absl::Status& status, const char* reason, const char* message) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_EQ(ErrorReason(status), reason);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }

  std::vector<float> weight_ = std::vector<float>(4, -1);
  std::vector<float> bias_ = std::vector<float>(2, -1);
  ChunkAssembler assembler_{
      {std::as_writable_bytes(std::span(weight_)), std::as_writable_bytes(std::span(bias_))},
      sizeof(float)};
};

TEST_F(ChunkAssemblerTest, PutsChunksTogether) {
  ASSERT_TRUE(assembler_.Add(Chunk(0, 0, {1, 2, 3})).ok());
  ExpectDamage(assembler_.Finish(), "MALFORMED_FRAME", "ended after 12 of 24 bytes");
  ASSERT_TRUE(assembler_.Add(Chunk(0, 3, {4})).ok());
  ASSERT_TRUE(assembler_.Add(Chunk(1, 0, {5, 6})).ok());
  EXPECT_TRUE(assembler_.Finish().ok());
  EXPECT_EQ(weight_, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(bias_, (std::vector<float>{5, 6}));
  EXPECT_EQ(assembler_.bytes_done(), assembler_.bytes_total());
  ExpectDamage(assembler_.Add(Chunk(1, 2, {7})), "MALFORMED_FRAME", "after the last element");
}

TEST_F(ChunkAssemblerTest, RefusesGapsRepeatsAndWrongTensors) {
  ASSERT_TRUE(assembler_.Add(Chunk(0, 0, {1, 2})).ok());
  ExpectDamage(assembler_.Add(Chunk(0, 3, {4})), "MALFORMED_FRAME",
               "begins at element 3 of tensor 0, expected element 2 of tensor 0");
  ExpectDamage(assembler_.Add(Chunk(0, 0, {1, 2})), "MALFORMED_FRAME", "expected element 2");
  ExpectDamage(assembler_.Add(Chunk(1, 0, {5, 6})), "MALFORMED_FRAME", "tensor 1");
  EXPECT_EQ(weight_, (std::vector<float>{1, 2, -1, -1}));
}

TEST_F(ChunkAssemblerTest, RefusesChunksBeyondTheTensorEmptyOnesAndParts) {
  ExpectDamage(assembler_.Add(Chunk(0, 0, {1, 2, 3, 4, 5})), "MALFORMED_FRAME",
               "20 bytes, expected whole elements of 4 bytes and at most 16");
  ExpectDamage(assembler_.Add(Chunk(0, 0, {})), "MALFORMED_FRAME", "0 bytes");
  v1::TensorChunk part = Chunk(0, 0, {1, 2});
  part.mutable_data()->pop_back();
  ExpectDamage(assembler_.Add(part), "MALFORMED_FRAME", "7 bytes");
  EXPECT_EQ(weight_, std::vector<float>(4, -1));
}

TEST_F(ChunkAssemblerTest, RefusesDamagedElements) {
  v1::TensorChunk chunk = Chunk(0, 0, {1, 2});
  (*chunk.mutable_data())[5] ^= 1;
  ExpectDamage(assembler_.Add(chunk), "CRC_MISMATCH", "element 0 of tensor 0 was damaged");
  EXPECT_EQ(weight_, std::vector<float>(4, -1));
}

TEST(ChunkCutterTest, CutsAtOneMebibyteAndAtTensors) {
  std::vector<double> weight((1 << 17) + 3);  // 1 MiB and 3 elements
  std::vector<double> bias(5);
  std::iota(weight.begin(), weight.end(), 0.0);
  ChunkCutter cutter({std::as_bytes(std::span(weight)), std::as_bytes(std::span(bias))},
                     sizeof(double));
  std::vector<double> weight_again(weight.size());
  std::vector<double> bias_again(bias.size(), 1);
  ChunkAssembler assembler({std::as_writable_bytes(std::span(weight_again)),
                            std::as_writable_bytes(std::span(bias_again))},
                           sizeof(double));
  std::vector<size_t> sizes;
  v1::TensorChunk chunk;
  while (cutter.Next(chunk)) {
    sizes.push_back(chunk.data().size());
    ASSERT_TRUE(assembler.Add(chunk).ok());
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{1 << 20, 24, 40}));
  EXPECT_TRUE(assembler.Finish().ok());
  EXPECT_EQ(weight_again, weight);
  EXPECT_EQ(bias_again, bias);
}

}  // namespace
}  // namespace fisherd
