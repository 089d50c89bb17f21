// Walks the rows frames of one batch and hands their elements to the kind's Batch, whatever pieces
// the bytes come in.

#ifndef FISHERD_CORE_BATCH_READER_H_
#define FISHERD_CORE_BATCH_READER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/batch_header.h"
#include "core/kinds/kind.h"

namespace fisherd::core {

// Not thread-safe. After an error the batch is spoilt: no further call.
class BatchReader {
 public:
  // `tensors` and `rows` are those of a header that the kind has accepted.
  BatchReader(std::vector<TensorSpec> tensors, int64_t rows, std::unique_ptr<Batch> batch);

  // Begins a frame that holds rows [first_row, first_row + row_count) of every tensor in order,
  // `bytes` bytes in all, with this CRC-32C; none: they have not travelled, and are read once, by
  // the batch. INVALID_ARGUMENT (BAD_ARGUMENT) unless the rows follow on those before and the byte
  // count is theirs.
  absl::Status BeginRows(int64_t first_row, int64_t row_count, int64_t bytes,
                         std::optional<uint32_t> crc32c);

  // The frame's next bytes; a piece may end anywhere, also within an element.
  absl::Status Append(std::span<const std::byte> piece);

  // Ends the frame: all its bytes must have come, undamaged. INVALID_ARGUMENT (CRC_MISMATCH).
  absl::Status EndRows();

  // Ends the batch: all rows must have come, and `rows` is their number.
  absl::Status Finish(int64_t rows);

  // The finished batch.
  std::unique_ptr<Batch> Release() { return std::move(batch_); }

 private:
  const std::vector<TensorSpec> tensors_;
  const int64_t rows_;
  std::unique_ptr<Batch> batch_;
  int64_t rows_seen_ = 0;   // in ended frames
  int64_t frame_rows_ = 0;  // of the frame under way
  int64_t frame_bytes_left_ = 0;
  std::optional<uint32_t> expected_crc_;  // of the frame
  uint32_t crc_ = 0;                      // of its bytes so far, if it has one
  size_t tensor_ = 0;                     // where the next byte belongs
  int64_t tensor_bytes_done_ = 0;         // of tensor_ in this frame
  std::array<std::byte, 8> split_element_;
  int split_bytes_ = 0;  // bytes of an element that the last piece began
};

// CRC-32C (Castagnoli), as in iSCSI and SCTP: extends `crc` (0 to begin with) by `bytes`.
uint32_t Crc32c(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BATCH_READER_H_
