#include "core/incoming_batch.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fisherd::core {
namespace {

// Counts the elements that it gets, and how many of its like there are.
class CountingBatch : public Batch {
 public:
  explicit CountingBatch(int& alive) : alive_(alive) { ++alive_; }
  ~CountingBatch() override { --alive_; }
  absl::Status Add(int, int64_t, std::span<const std::byte> elements) override {
    bytes += elements.size();
    return absl::OkStatus();
  }
  absl::Status Finish() override { return absl::OkStatus(); }

  size_t bytes = 0;

 private:
  int& alive_;
};

class IncomingBatchTest : public ::testing::Test {
 protected:
  absl::Status AddRow(int64_t row) {
    const std::string_view half = std::string_view(data_).substr(0, 3);
    const std::string_view rest = std::string_view(data_).substr(3);
    return batch_.AddRows(row, 1, 8, std::vector{half, rest},
                          Crc32c(0, std::as_bytes(std::span(data_))));
  }

  const std::string data_ = "8 bytes.";
  int alive_ = 0;
  IncomingBatch batch_{BatchReader({{TensorRole::kInputs, 0, DataType::kFloat32, {2, 2}}}, 2,
                                   std::make_unique<CountingBatch>(alive_)),
                       /*rows=*/2, /*label=*/7};
};

TEST_F(IncomingBatchTest, TakesRowsAndIsReleased) {
  EXPECT_EQ(batch_.rows(), 2);
  EXPECT_EQ(batch_.label(), 7);
  EXPECT_TRUE(AddRow(0).ok());
  EXPECT_FALSE(batch_.Finish(2).ok()) << "a row is missing";
  EXPECT_TRUE(AddRow(1).ok());
  EXPECT_TRUE(batch_.Finish(2).ok());
  const std::unique_ptr<Batch> whole = batch_.Release();
  EXPECT_EQ(static_cast<CountingBatch&>(*whole).bytes, 16);
}

TEST_F(IncomingBatchTest, TakesRowsThatHaveNotTravelledWithoutACrc) {
  EXPECT_TRUE(batch_.AddRows(0, 1, 8, std::vector<std::string_view>{data_}, std::nullopt).ok());
}

TEST_F(IncomingBatchTest, RefusesDamagedRows) {
  EXPECT_EQ(batch_.AddRows(0, 1, 8, std::vector<std::string_view>{data_}, 1).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(IncomingBatchTest, OnceDroppedItHoldsNothingAndMindsNothing) {
  EXPECT_TRUE(AddRow(0).ok());
  EXPECT_EQ(alive_, 1);
  batch_.Drop();
  EXPECT_EQ(alive_, 0);
  EXPECT_TRUE(AddRow(1).ok());
  EXPECT_TRUE(AddRow(1).ok()) << "not looked at";
  EXPECT_TRUE(batch_.Finish(9).ok());
  EXPECT_EQ(batch_.Release(), nullptr);
}

}  // namespace
}  // namespace fisherd::core
