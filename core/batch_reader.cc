#include "core/batch_reader.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

int64_t ElementsPerRow(const TensorSpec& tensor) {
  int64_t count = 1;
  for (size_t axis = 1; axis < tensor.shape.size(); ++axis) count *= tensor.shape[axis];
  return count;
}

}  // namespace

BatchReader::BatchReader(std::vector<TensorSpec> tensors, int64_t rows,
                         std::unique_ptr<Batch> batch)
    : tensors_(std::move(tensors)), rows_(rows), batch_(std::move(batch)) {}

absl::Status BatchReader::BeginRows(int64_t first_row, int64_t row_count, int64_t bytes,
                                    std::optional<uint32_t> crc32c) {
  if (frame_rows_ != 0)
    return BadArgument("rows", "rows begin before the frame before them has ended");
  if (first_row != rows_seen_) {
    return BadArgument("first_row",
                       absl::StrFormat("first_row is %d; expected %d", first_row, rows_seen_));
  }
  if (row_count < 1 || row_count > rows_ - rows_seen_) {
    return BadArgument("row_count",
                       absl::StrFormat("row_count is %d; expected 1 to %d, what is left of %d rows",
                                       row_count, rows_ - rows_seen_, rows_));
  }
  int64_t row_bytes = 0;
  for (const TensorSpec& tensor : tensors_) {
    row_bytes += ElementsPerRow(tensor) * SizeOf(tensor.dtype);
  }
  if (bytes != row_count * row_bytes) {
    return BadArgument("data", absl::StrFormat("data has %d bytes; expected %d, for %d rows of %d",
                                               bytes, row_count * row_bytes, row_count, row_bytes));
  }
  frame_rows_ = row_count;
  frame_bytes_left_ = bytes;
  expected_crc_ = crc32c;
  crc_ = 0;
  tensor_ = 0;
  tensor_bytes_done_ = 0;
  split_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status BatchReader::Append(std::span<const std::byte> piece) {
  if (piece.size() > frame_bytes_left_) {
    return BadArgument("data", absl::StrFormat("%d bytes of data came; expected at most %d more",
                                               piece.size(), frame_bytes_left_));
  }
  frame_bytes_left_ -= piece.size();
  if (expected_crc_.has_value()) crc_ = Crc32c(crc_, piece);
  while (!piece.empty()) {
    const TensorSpec& tensor = tensors_[tensor_];
    const int64_t element_bytes = SizeOf(tensor.dtype);
    const int64_t row_elements = ElementsPerRow(tensor);
    const int64_t tensor_bytes = frame_rows_ * row_elements * element_bytes;
    const int64_t first = rows_seen_ * row_elements + tensor_bytes_done_ / element_bytes;
    std::span<const std::byte> elements;
    if (split_bytes_ == 0 && piece.size() >= element_bytes) {
      const int64_t whole = piece.size() / element_bytes * element_bytes;
      elements = piece.first(std::min(whole, tensor_bytes - tensor_bytes_done_));
      piece = piece.subspan(elements.size());
    } else {
      const size_t taken = std::min<size_t>(piece.size(), element_bytes - split_bytes_);
      std::memcpy(split_element_.data() + split_bytes_, piece.data(), taken);
      split_bytes_ += taken;
      piece = piece.subspan(taken);
      if (split_bytes_ < element_bytes) break;
      elements = std::span(split_element_).first(element_bytes);
      split_bytes_ = 0;
    }
    if (absl::Status status = batch_->Add(tensor_, first, elements); !status.ok()) return status;
    tensor_bytes_done_ += elements.size();
    if (tensor_bytes_done_ == tensor_bytes) {
      ++tensor_;
      tensor_bytes_done_ = 0;
    }
  }
  return absl::OkStatus();
}

absl::Status BatchReader::EndRows() {
  if (frame_bytes_left_ != 0) {
    return BadArgument("data",
                       absl::StrFormat("data ends %d bytes before its frame", frame_bytes_left_));
  }
  if (expected_crc_.has_value() && crc_ != *expected_crc_) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kCrcMismatch,
        absl::StrFormat("rows %d to %d came with crc32c 0x%08x, but their bytes have "
                        "0x%08x; expected CRC-32C (Castagnoli) of data",
                        rows_seen_, rows_seen_ + frame_rows_ - 1, *expected_crc_, crc_),
        {{"field", "crc32c"}});
  }
  rows_seen_ += frame_rows_;
  frame_rows_ = 0;
  return absl::OkStatus();
}

absl::Status BatchReader::Finish(int64_t rows) {
  if (rows != rows_ || rows_seen_ != rows_) {
    return BadArgument(
        "rows",
        absl::StrFormat(
            "the batch ends after %d rows, and its end says %d; expected the %d of its header",
            rows_seen_, rows, rows_));
  }
  return batch_->Finish();
}

uint32_t Crc32c(uint32_t crc, std::span<const std::byte> bytes) {
  crc = ~crc;
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<size_t>(bytes.size(), INT_MAX));
    auto* data = reinterpret_cast<const unsigned char*>(part.data());
    crc = crc32_iscsi(const_cast<unsigned char*>(data), static_cast<int>(part.size()), crc);
    bytes = bytes.subspan(part.size());
  }
  return ~crc;
}

}  // namespace fisherd::core
