#include "server/chunk_sequence.h"

#include <span>
#include <string>

#include "core/batch_reader.h"
#include "core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

// A weight of 6 elements and a bias of 3, of 4 bytes each.
ChunkSequence WeightAndBias() {
  return ChunkSequence(
      {{.role = core::TensorRole::kWeight, .dtype = core::DataType::kFloat32, .shape = {2, 3}},
       {.role = core::TensorRole::kBias, .dtype = core::DataType::kFloat32, .shape = {3}}});
}

v1::TensorChunk Chunk(int tensor, int64_t first, size_t bytes) {
  v1::TensorChunk chunk;
  chunk.set_tensor(tensor);
  chunk.set_first_element(first);
  chunk.set_data(std::string(bytes, 'x'));
  chunk.set_crc32c(core::Crc32c(0, std::as_bytes(std::span(chunk.data()))));
  return chunk;
}

void ExpectMalformed(const absl::Status& status, const char* message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  ASSERT_TRUE(core::GetErrorDetails(status).has_value());
  EXPECT_EQ(core::GetErrorDetails(status)->reason, core::reason::kMalformedFrame);
}

TEST(ChunkSequenceTest, GoesThroughTheTensorsInOrder) {
  ChunkSequence sequence = WeightAndBias();
  EXPECT_EQ(sequence.max_elements(), 6);
  EXPECT_TRUE(sequence.Check(Chunk(0, 0, 16)).ok());
  sequence.Advance(4);
  EXPECT_EQ(sequence.first_element(), 4);
  EXPECT_EQ(sequence.max_elements(), 2);
  ExpectMalformed(sequence.CheckDone(), "ended at element 4 of tensor 0; expected 2 more");
  EXPECT_TRUE(sequence.Check(Chunk(0, 4, 8)).ok());
  sequence.Advance(2);
  EXPECT_EQ(sequence.tensor(), 1);
  EXPECT_EQ(sequence.first_element(), 0);
  EXPECT_TRUE(sequence.Check(Chunk(1, 0, 12)).ok());
  sequence.Advance(3);
  EXPECT_TRUE(sequence.done());
  EXPECT_TRUE(sequence.CheckDone().ok());
  ExpectMalformed(sequence.Check(Chunk(2, 0, 4)), "a chunk follows the last one");
}

TEST(ChunkSequenceTest, SendsAtMostAMebibyteAtOnce) {
  const ChunkSequence sequence({{.role = core::TensorRole::kResult,
                                 .dtype = core::DataType::kFloat64,
                                 .shape = {1000, 1000}}});
  EXPECT_EQ(sequence.max_elements(), kMaxChunkBytes / 8);
}

TEST(ChunkSequenceTest, RefusesWhatIsNotNext) {
  ChunkSequence sequence = WeightAndBias();
  ExpectMalformed(sequence.Check(Chunk(1, 0, 4)),
                  "begins at element 0 of tensor 1; expected element 0 of tensor 0");
  ExpectMalformed(sequence.Check(Chunk(0, 1, 4)), "begins at element 1 of tensor 0");
  ExpectMalformed(sequence.Check(Chunk(0, 0, 0)), "has 0 bytes");
  ExpectMalformed(sequence.Check(Chunk(0, 0, 5)), "has 5 bytes; expected whole elements of 4");
  ExpectMalformed(sequence.Check(Chunk(0, 0, kMaxChunkBytes + 4)), "at most 1048576 bytes");
  ExpectMalformed(sequence.Check(Chunk(0, 0, 28)), "has 7 elements; the tensor has 6 left");
  v1::TensorChunk damaged = Chunk(0, 0, 8);
  (*damaged.mutable_data())[3] ^= 1;
  ExpectMalformed(sequence.Check(damaged), "came with crc32c");
}

}  // namespace
}  // namespace fisherd::server
