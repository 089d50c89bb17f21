// Rows that lie in shared memory, at a Session.

#include <limits>

#include "server/shared_regions.h"
#include "tests/server/memory_file.h"
#include "tests/server/session_harness.h"

namespace fisherd::server {
namespace {

constexpr int64_t kRegionBytes = 10'000;
constexpr int64_t kOffset = 4'099;  // unaligned

class SessionSharedTest : public SessionTest {
 protected:
  SessionSharedTest() { token_ = *regions_.Add(file_.fd()); }

  std::unique_ptr<Trainer> JoinSharing(int client, const SharedRegions* regions) {
    auto trainer = std::make_unique<Trainer>(*registry_, table_, regions);
    EXPECT_TRUE(trainer->Send(HelloMessage(client)).ok());
    return trainer;
  }
  // The golden batch, its bytes written at kOffset.
  v1::UpdateRequest SharedBatch(int64_t step) {
    const std::string bytes = BytesOf(golden_batch_);
    file_.Write(kOffset, bytes);
    v1::UpdateRequest message = Header("f", step);
    message.mutable_rows()->set_row_count(2);
    v1::SharedBytes& shared = *message.mutable_rows()->mutable_shared();
    shared.set_region(token_);
    shared.set_offset(kOffset);
    shared.set_size(std::ssize(bytes));
    message.mutable_end()->set_rows(2);
    return message;
  }

  SharedRegions regions_{1 << 20};
  MemoryFile file_{kRegionBytes};
  std::string token_;
};

TEST_F(SessionSharedTest, CountsLikeAnyOther) {
  const auto factor = Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  ASSERT_TRUE(trainer->Send(SharedBatch(1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
}

TEST_F(SessionSharedTest, ABatchMayComeByEitherWayAndPieceByPiece) {
  const auto factor = Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  v1::UpdateRequest whole = SharedBatch(1);
  const std::string bytes = BytesOf(golden_batch_);  // [2, 2] inputs, then [2, 2] gradients
  v1::UpdateRequest header, first, second;
  *header.mutable_header() = whole.header();
  SetRows(first, 0, 1, bytes.substr(0, 8) + bytes.substr(16, 8));
  file_.Write(0, bytes.substr(8, 8) + bytes.substr(24, 8));
  *second.mutable_rows() = whole.rows();
  second.mutable_rows()->set_first_row(1);
  second.mutable_rows()->set_row_count(1);
  second.mutable_rows()->mutable_shared()->set_offset(0);
  second.mutable_rows()->mutable_shared()->set_size(16);
  *second.mutable_end() = whole.end();
  for (const v1::UpdateRequest& message : {header, first, second}) {
    ASSERT_TRUE(trainer->Send(message).ok());
  }
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  EXPECT_EQ(Elements(ReadAfter(*factor, 1)), golden_covariance_);
  // Sent again it is known, wherever its bytes are.
  ASSERT_TRUE(trainer->Send(whole).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
}

TEST_F(SessionSharedTest, RefusesWhatIsNotWithinTheRegion) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  struct Case {
    int64_t offset;
    int64_t size;
    std::string field;
  };
  const Case cases[] = {{-1, 32, "shared.offset"},
                        {kMin, 32, "shared.offset"},
                        {kMax, 32, "shared.offset"},
                        {kMax - 31, 32, "shared.offset"},
                        {9'969, 32, "shared.offset"},
                        {10'000, 32, "shared.offset"},
                        {0, 0, "shared.size"},
                        {0, -1, "shared.size"},
                        {0, kMin, "shared.size"},
                        {0, kMax, "shared.size"},
                        {1, kMax, "shared.size"},
                        {0, kRegionBytes + 1, "shared.size"},
                        {1, kRegionBytes, "shared.offset"},
                        {0, 31, "data"},
                        {0, 33, "data"}};
  for (const Case& c : cases) {
    v1::UpdateRequest message = SharedBatch(1);
    message.mutable_rows()->mutable_shared()->set_offset(c.offset);
    message.mutable_rows()->mutable_shared()->set_size(c.size);
    ASSERT_TRUE(trainer->Send(message).ok());
    ExpectRefusal(trainer->Refusal(), grpc::INVALID_ARGUMENT, "BAD_ARGUMENT", "expected", c.field);
  }
  v1::UpdateRequest both = SharedBatch(1);
  both.mutable_rows()->set_data(BytesOf(golden_batch_));
  ASSERT_TRUE(trainer->Send(both).ok());
  ExpectRefusal(trainer->Refusal(), grpc::INVALID_ARGUMENT, "BAD_ARGUMENT", "expected one",
                "shared");
  // The stream goes on.
  ASSERT_TRUE(trainer->Send(SharedBatch(1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
}

TEST_F(SessionSharedTest, RefusesMoreThanAMessageMayHave) {
  constexpr int64_t kTooMuch = (int64_t{4} << 20) + 1;
  SharedRegions regions(2 * kTooMuch);
  MemoryFile file(kTooMuch);
  token_ = *regions.Add(file.fd());
  Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions);
  trainer->Open("f");
  v1::UpdateRequest message = SharedBatch(1);
  message.mutable_rows()->mutable_shared()->set_offset(0);
  message.mutable_rows()->mutable_shared()->set_size(kTooMuch);
  ASSERT_TRUE(trainer->Send(message).ok());
  ExpectRefusal(trainer->Refusal(), grpc::INVALID_ARGUMENT, "BAD_ARGUMENT",
                "shared.size is 4194305; expected 1 to 4194304", "shared.size");
}

TEST_F(SessionSharedTest, ElementsAreLookedAtAsEver) {
  Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  const v1::UpdateRequest message = SharedBatch(1);
  const float infinity = std::numeric_limits<float>::infinity();
  file_.Write(kOffset + 4, {reinterpret_cast<const char*>(&infinity), sizeof infinity});
  ASSERT_TRUE(trainer->Send(message).ok());
  const v1::Refused refused = trainer->Refusal();
  EXPECT_EQ(InfoOf(refused.status()).reason(), "NON_FINITE_INPUT");
  EXPECT_THAT(refused.status().message(), ::testing::HasSubstr("inputs, row 0, column 1: inf"));
}

void ExpectEnded(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  const auto details = core::GetErrorDetails(status);
  ASSERT_TRUE(details.has_value());
  EXPECT_EQ(details->reason, "REGION_UNKNOWN");
}

TEST_F(SessionSharedTest, ARegionThatIsUnknownEndsTheStream) {
  Create("f", Golden());
  for (const std::string& token : {std::string(), std::string(16, 'x'), token_.substr(1)}) {
    const auto trainer = JoinSharing(1, &regions_);
    trainer->Open("f");
    v1::UpdateRequest message = SharedBatch(1);
    message.mutable_rows()->mutable_shared()->set_region(token);
    ExpectEnded(trainer->Send(message));
  }
  const auto without = JoinSharing(1, nullptr);
  without->Open("f");
  ExpectEnded(without->Send(SharedBatch(1)));
}

TEST_F(SessionSharedTest, ARegionThatGoesInTheMidstOfABatchEndsTheStream) {
  Create("f", Golden());
  auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  const v1::UpdateRequest whole = SharedBatch(1);
  v1::UpdateRequest header, rows;
  *header.mutable_header() = whole.header();
  *rows.mutable_rows() = whole.rows();
  ASSERT_TRUE(trainer->Send(header).ok());
  regions_.Remove(token_);
  EXPECT_EQ(regions_.bytes(), 0);
  ExpectEnded(trainer->Send(rows));
  // It comes again on another stream, and counts once.
  trainer = nullptr;
  trainer = std::make_unique<Trainer>(*registry_, table_, &regions_);
  ASSERT_TRUE(trainer->Send(HelloMessage(1, 2)).ok());
  EXPECT_EQ(trainer->Open("f").next(), 1);
  token_ = *regions_.Add(file_.fd());
  ASSERT_TRUE(trainer->Send(SharedBatch(1)).ok());
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
}

TEST_F(SessionSharedTest, WhatIsDiscardedIsNotLookedAt) {
  Create("f", Golden());
  const auto trainer = JoinSharing(1, &regions_);
  trainer->Open("f");
  ASSERT_TRUE(trainer->Send(SharedBatch(1)).ok());
  trainer->AwaitNext(2);
  regions_.Remove(token_);
  ASSERT_TRUE(trainer->Send(SharedBatch(1)).ok()) << "a duplicate";
  EXPECT_EQ(trainer->AwaitNext(2).next(), 2);
  ASSERT_TRUE(trainer->Send(SharedBatch(9)).ok()) << "beyond the window";
  EXPECT_EQ(InfoOf(trainer->Refusal().status()).reason(), "BEYOND_WINDOW");
}

}  // namespace
}  // namespace fisherd::server
