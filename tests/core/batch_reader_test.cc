#include "core/batch_reader.h"

#include <map>

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

// Keeps every element that it is given, and checks the order in which they come.
class RecordingBatch : public Batch {
 public:
  explicit RecordingBatch(std::vector<TensorSpec> tensors) : tensors_(std::move(tensors)) {}

  absl::Status Add(int tensor, int64_t first_element,
                   std::span<const std::byte> elements) override {
    const int size = SizeOf(tensors_[tensor].dtype);
    std::vector<std::byte>& bytes = bytes_[tensor];
    EXPECT_FALSE(finished_);
    EXPECT_FALSE(elements.empty());
    EXPECT_EQ(elements.size() % size, 0);
    EXPECT_EQ(first_element * size, bytes.size()) << "tensor " << tensor;
    bytes.insert(bytes.end(), elements.begin(), elements.end());
    if (refuse_) return absl::InternalError("refused");
    return absl::OkStatus();
  }
  absl::Status Finish() override {
    finished_ = true;
    return refuse_ ? absl::InternalError("not finished") : absl::OkStatus();
  }

  const std::map<int, std::vector<std::byte>>& bytes() const { return bytes_; }
  bool finished() const { return finished_; }
  void Refuse() { refuse_ = true; }

 private:
  const std::vector<TensorSpec> tensors_;
  std::map<int, std::vector<std::byte>> bytes_;
  bool finished_ = false;
  bool refuse_ = false;
};

constexpr int64_t kRows = 3;

// Tensors of every element size, and rows of one element.
std::vector<TensorSpec> SmallTensors() {
  return {{.role = TensorRole::kInputs, .dtype = DataType::kFloat64, .shape = {kRows, 2}},
          {.role = TensorRole::kOutputsGrads, .dtype = DataType::kFloat32, .shape = {kRows, 1}},
          {.role = TensorRole::kOutputsGrads,
           .source = 1,
           .dtype = DataType::kBfloat16,
           .shape = {kRows, 1}},
          {.role = TensorRole::kRowWeights, .dtype = DataType::kFloat16, .shape = {kRows}}};
}

// Bytes of rows [first, first + count) of all tensors as a frame carries them; every byte differs
// from its neighbours.
std::vector<std::byte> Frame(int64_t first, int64_t count) {
  std::vector<std::byte> frame;
  int tensor = 0;
  for (const int64_t row_bytes : {16, 4, 2, 2}) {
    for (int64_t i = first * row_bytes; i < (first + count) * row_bytes; ++i) {
      frame.push_back(static_cast<std::byte>(50 * tensor + i));
    }
    ++tensor;
  }
  return frame;
}

class BatchReaderTest : public ::testing::Test {
 protected:
  void Start() {
    auto batch = std::make_unique<RecordingBatch>(SmallTensors());
    batch_ = batch.get();
    reader_.emplace(SmallTensors(), kRows, std::move(batch));
  }

  // A whole frame, cut before the given bytes.
  absl::Status Send(int64_t first, int64_t count, const std::vector<size_t>& cuts) {
    const std::vector<std::byte> frame = Frame(first, count);
    const uint32_t crc = Crc32c(0, frame);
    if (auto status = reader_->BeginRows(first, count, frame.size(), crc); !status.ok()) {
      return status;
    }
    size_t from = 0;
    for (const size_t cut : cuts) {
      if (auto status = Append(frame, from, cut); !status.ok()) return status;
      from = cut;
    }
    if (auto status = Append(frame, from, frame.size()); !status.ok()) return status;
    return reader_->EndRows();
  }

  absl::Status Append(const std::vector<std::byte>& frame, size_t from, size_t to) {
    // A copy of just these bytes, so that reading beyond them is seen by AddressSanitizer.
    const std::vector<std::byte> piece(frame.begin() + from, frame.begin() + to);
    return reader_->Append(piece);
  }

  void ExpectWholeBatch() {
    ASSERT_EQ(reader_->Finish(kRows), absl::OkStatus());
    EXPECT_TRUE(batch_->finished());
    std::vector<std::byte> all;
    for (const auto& [tensor, bytes] : batch_->bytes()) {
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    EXPECT_EQ(all, Frame(0, kRows));
  }

  RecordingBatch* batch_ = nullptr;
  std::optional<BatchReader> reader_;
};

TEST_F(BatchReaderTest, CutAnywhereIntoThreePiecesIsTheSameBatch) {
  const size_t size = Frame(0, kRows).size();
  for (size_t a = 0; a <= size; ++a) {
    for (size_t b = a; b <= size; ++b) {
      SCOPED_TRACE(::testing::Message() << "cut at " << a << " and " << b);
      Start();
      ASSERT_EQ(Send(0, kRows, {a, b}), absl::OkStatus());
      ExpectWholeBatch();
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST_F(BatchReaderTest, PiecesOfEverySizeAreTheSameBatch) {
  const size_t size = Frame(0, kRows).size();
  for (size_t step = 1; step <= size; ++step) {
    SCOPED_TRACE(step);
    std::vector<size_t> cuts;
    for (size_t cut = step; cut < size; cut += step) cuts.push_back(cut);
    Start();
    ASSERT_EQ(Send(0, kRows, cuts), absl::OkStatus());
    ExpectWholeBatch();
  }
}

TEST_F(BatchReaderTest, FramesOfAnyRowsAreTheSameBatch) {
  for (const auto& counts : std::vector<std::vector<int64_t>>{{3}, {1, 2}, {2, 1}, {1, 1, 1}}) {
    for (size_t cut = 0; cut <= Frame(0, 1).size(); ++cut) {
      Start();
      int64_t first = 0;
      for (const int64_t count : counts) {
        ASSERT_EQ(Send(first, count, {cut}), absl::OkStatus());
        first += count;
      }
      ExpectWholeBatch();
    }
  }
}

TEST_F(BatchReaderTest, ReleasesTheBatch) {
  Start();
  ASSERT_EQ(Send(0, kRows, {}), absl::OkStatus());
  ASSERT_EQ(reader_->Finish(kRows), absl::OkStatus());
  EXPECT_EQ(reader_->Release().get(), batch_);
}

void ExpectRefused(const absl::Status& status, const std::string& field,
                   const std::string& message) {
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, message));
  EXPECT_EQ(FieldOf(status), field);
}

TEST_F(BatchReaderTest, RefusesRowsOutOfOrder) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  Start();
  ASSERT_EQ(Send(0, 1, {}), absl::OkStatus());
  for (const int64_t first : {int64_t{0}, int64_t{2}, int64_t{-1}, kMax, -kMax}) {
    ExpectRefused(reader_->BeginRows(first, 1, 24, std::nullopt), "first_row", "expected 1");
  }
  for (const int64_t count : {int64_t{0}, int64_t{-1}, int64_t{3}, kMax, -kMax}) {
    ExpectRefused(reader_->BeginRows(1, count, 24 * 3, std::nullopt), "row_count",
                  "expected 1 to 2");
  }
  for (const int64_t bytes : {int64_t{0}, int64_t{47}, int64_t{49}, int64_t{24}, kMax, -kMax}) {
    ExpectRefused(reader_->BeginRows(1, 2, bytes, std::nullopt), "data", "expected 48");
  }
  EXPECT_EQ(batch_->bytes().at(3).size(), 2);
}

TEST_F(BatchReaderTest, RefusesRowsWithinAFrame) {
  Start();
  ASSERT_EQ(reader_->BeginRows(0, 1, 24, std::nullopt), absl::OkStatus());
  ExpectRefused(reader_->BeginRows(0, 1, 24, std::nullopt), "rows", "before the frame");
}

TEST_F(BatchReaderTest, RefusesMoreBytesThanTheFrameHas) {
  Start();
  ASSERT_EQ(reader_->BeginRows(0, 1, 24, std::nullopt), absl::OkStatus());
  ASSERT_EQ(reader_->Append(std::vector<std::byte>(20)), absl::OkStatus());
  ExpectRefused(reader_->Append(std::vector<std::byte>(5)), "data", "at most 4 more");
}

TEST_F(BatchReaderTest, RefusesFewerBytesThanTheFrameHas) {
  Start();
  ASSERT_EQ(reader_->BeginRows(0, 1, 24, std::nullopt), absl::OkStatus());
  ASSERT_EQ(reader_->Append(std::vector<std::byte>(23)), absl::OkStatus());
  ExpectRefused(reader_->EndRows(), "data", "1 bytes before");
}

TEST_F(BatchReaderTest, RefusesDamagedFrames) {
  Start();
  const std::vector<std::byte> frame = Frame(0, 1);
  ASSERT_EQ(reader_->BeginRows(0, 1, frame.size(), Crc32c(0, frame) ^ 1), absl::OkStatus());
  ASSERT_EQ(reader_->Append(frame), absl::OkStatus());
  const absl::Status status = reader_->EndRows();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kCrcMismatch,
                              "rows 0 to 0 came with crc32c 0x"));
  EXPECT_EQ(FieldOf(status), "crc32c");
}

TEST_F(BatchReaderTest, TakesWhatHasNotTravelledWithoutACrc) {
  Start();
  const std::vector<std::byte> frame = Frame(0, 2);
  ASSERT_EQ(reader_->BeginRows(0, 2, frame.size(), std::nullopt), absl::OkStatus());
  ASSERT_EQ(reader_->Append(frame), absl::OkStatus());
  EXPECT_EQ(reader_->EndRows(), absl::OkStatus());
  EXPECT_EQ(batch_->bytes().at(0).size(), 32);
}

TEST_F(BatchReaderTest, RefusesAnotherNumberOfRowsAtTheEnd) {
  Start();
  ASSERT_EQ(Send(0, 2, {}), absl::OkStatus());
  ExpectRefused(reader_->Finish(3), "rows", "ends after 2 rows");
  ExpectRefused(reader_->Finish(2), "rows", "expected the 3");
  ASSERT_EQ(reader_->BeginRows(2, 1, 24, std::nullopt), absl::OkStatus());
  ExpectRefused(reader_->Finish(3), "rows", "ends after 2 rows");
  EXPECT_FALSE(batch_->finished());
}

TEST_F(BatchReaderTest, PassesTheBatchesErrorsOn) {
  Start();
  batch_->Refuse();
  EXPECT_EQ(Send(0, 1, {}), absl::InternalError("refused"));
  Start();
  ASSERT_EQ(Send(0, kRows, {}), absl::OkStatus());
  batch_->Refuse();
  EXPECT_EQ(reader_->Finish(kRows), absl::InternalError("not finished"));
}

TEST(Crc32cTest, CheckValue) {
  const std::string check = "123456789";
  const auto bytes = std::as_bytes(std::span(check));
  EXPECT_EQ(Crc32c(0, bytes), 0xE3069283);
  EXPECT_EQ(Crc32c(0, {}), 0);
  for (size_t cut = 0; cut <= check.size(); ++cut) {
    EXPECT_EQ(Crc32c(Crc32c(0, bytes.first(cut)), bytes.subspan(cut)), 0xE3069283) << cut;
  }
  EXPECT_EQ(Crc32c(0, std::vector<std::byte>(32)), 0x8A9136AA);  // RFC 3720, B.4
}

}  // namespace
}  // namespace fisherd::core
