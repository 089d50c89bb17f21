// The C++ client and the server share memory: that it is used, that it changes nothing, and that
// batches travel as ever when it cannot be had.

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "fisherd/client.h"
#include "tests/end_to_end/server_fixture.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

constexpr int64_t kRows = 256;  // of 160 bytes: 40 KiB a batch
constexpr int64_t kBatchBytes = kRows * 160;

class SharedMemoryTest : public ServerTest {
 protected:
  SharedMemoryTest() {
    options_.shared_memory = TestPath();
    options_.shared_memory_limit = int64_t{1} << 30;
  }

  Client Connect() { return *Client::Connect(Address()); }
  UpdateWriter Open(UpdateStream& stream, int tower = 0, const std::string& factor = "f") {
    auto writer = stream.Open(factor, tower);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }
  // Writes the batch that belongs to the step.
  static absl::StatusOr<int64_t> TryWrite(UpdateWriter& writer) {
    const int64_t step = writer.next_step();
    const Matrix<float> inputs =
        Matrix<float>::NullaryExpr(kRows, 30, [&](auto i, auto j) { return (i + j + step) % 7; });
    const Matrix<float> grads =
        Matrix<float>::NullaryExpr(kRows, 10, [&](auto i, auto j) { return (i * j + step) % 5; });
    return writer.Write({.inputs = inputs, .outputs_grads = {grads}}, {.decay = 1, .weight = 1});
  }
  static int64_t Write(UpdateWriter& writer) {
    const auto written = TryWrite(writer);
    EXPECT_TRUE(written.ok()) << written.status();
    return written.value_or(0);
  }
  static void WriteThrough(UpdateWriter& writer, int64_t step) {
    while (writer.next_step() <= step) Write(writer);
    const absl::Status ended = writer.WaitEnded(step);
    EXPECT_TRUE(ended.ok()) << ended;
  }
  Values ReadFactor(const std::string& factor) {
    return ReadAll(stub(), ReadOf(factor)).tensors.at(0);
  }
};

TEST_P(SharedMemoryTest, IsUsedByItselfAndTheBitsAreTheSame) {
  constexpr int64_t kSteps = 50;
  Create("f", LayerSpec(30, 10));
  Client client = Connect();
  Values shared;
  for (const int64_t bytes : {int64_t{64} << 20, int64_t{0}}) {
    UpdateStream stream = client.OpenUpdates({.shared_memory = bytes, .form = v1::BATCH_FORM_RAW});
    UpdateWriter writer = Open(stream);
    WriteThrough(writer, kSteps);
    const UpdateStats stats = writer.stats();
    EXPECT_EQ(stats.raw_batches, kSteps);
    EXPECT_EQ(stats.shared_batches, bytes > 0 ? kSteps : 0);
    EXPECT_EQ(stats.resent_batches, 0);
    if (bytes > 0) {
      shared = ReadFactor("f");
      EXPECT_TRUE(stream.Close().ok());
      v1::DeleteFactorRequest request;
      request.set_name("f");
      v1::DeleteFactorResponse response;
      ASSERT_TRUE(Call(&v1::FactorService::Stub::DeleteFactor, request, &response).ok());
      Create("f", LayerSpec(30, 10));
    } else {
      EXPECT_EQ(ReadFactor("f"), shared);
    }
  }
}

TEST_P(SharedMemoryTest, WhatFindsNoRoomTravels) {
  Create("f", LayerSpec(30, 10, true, /*towers=*/2));
  Client client = Connect(), other = Connect();
  // Room for one batch, where the window takes four.
  UpdateStream stream =
      client.OpenUpdates({.shared_memory = kBatchBytes, .form = v1::BATCH_FORM_RAW});
  UpdateStream others = other.OpenUpdates({.form = v1::BATCH_FORM_RAW});
  UpdateWriter writer = Open(stream, 0), late = Open(others, 1);
  for (int64_t step = 1; step <= 4; ++step) EXPECT_EQ(Write(writer), step);
  EXPECT_EQ(writer.stats().shared_batches, 1);
  WriteThrough(late, 4);
  EXPECT_TRUE(writer.WaitEnded(4).ok());
  EXPECT_EQ(Write(writer), 5) << "and the room is there again";
  EXPECT_EQ(writer.stats().shared_batches, 2);
  EXPECT_EQ(late.stats().shared_batches, 4);
  WriteThrough(late, 5);
}

TEST_P(SharedMemoryTest, AServerWithoutRoomIsSentTheBytes) {
  Create("f", LayerSpec(30, 10));
  Client client = Connect();
  UpdateStream stream =
      client.OpenUpdates({.shared_memory = int64_t{2} << 30, .form = v1::BATCH_FORM_RAW});
  UpdateWriter writer = Open(stream);
  WriteThrough(writer, 3);
  EXPECT_EQ(writer.stats().shared_batches, 0);
}

TEST_P(SharedMemoryTest, ADoorThatIsGoneIsNoError) {
  std::filesystem::remove(options_.shared_memory);
  Create("f", LayerSpec(30, 10));
  Client client = Connect();
  UpdateStream stream = client.OpenUpdates({.form = v1::BATCH_FORM_RAW});
  UpdateWriter writer = Open(stream);
  WriteThrough(writer, 3);
  EXPECT_EQ(writer.stats().shared_batches, 0);
}

// Batches that were on their way when their writer was given up are not overwritten by what another
// writes meanwhile: they count with the bytes that they were written with, or not at all.
TEST_P(SharedMemoryTest, AWriterThatIsOpenedAnewSpoilsNothing) {
  constexpr int64_t kSteps = 300;
  for (const char* factor : {"f", "other", "reference"}) Create(factor, LayerSpec(30, 10));
  Client client = Connect();
  UpdateStream stream = client.OpenUpdates({.form = v1::BATCH_FORM_RAW});
  std::atomic<bool> done = false;
  std::thread meanwhile([&] {
    UpdateWriter other = Open(stream, 0, "other");
    while (!done) Write(other);
  });
  while (!done) {
    UpdateWriter writer = Open(stream);
    for (int i = 0; i < 4 && writer.next_step() <= kSteps; ++i) {
      const absl::Status written = TryWrite(writer).status();
      // Those of the writer before, which were on their way, may have counted meanwhile.
      EXPECT_TRUE(written.ok() || ErrorReason(written) == "STEP_LATE") << written;
    }
    if (writer.next_step() <= kSteps) continue;
    writer.WaitEnded(kSteps).IgnoreError();
    done = true;
  }
  meanwhile.join();
  UpdateWriter reference = Open(stream, 0, "reference");
  WriteThrough(reference, kSteps);
  EXPECT_EQ(reference.stats().shared_batches, kSteps);
  EXPECT_EQ(ReadFactor("f"), ReadFactor("reference"));
}

INSTANTIATE_TEST_SUITE_P(Addresses, SharedMemoryTest,
                         testing::Values(Transport::kTcp, Transport::kUnix), NameOf);

}  // namespace
}  // namespace fisherd::server
