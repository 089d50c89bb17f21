#include "core/incoming_batch.h"

namespace fisherd::core {

absl::Status IncomingBatch::AddRows(int64_t first_row, int64_t row_count, int64_t bytes,
                                    std::span<const std::string_view> pieces,
                                    std::optional<uint32_t> crc32c) {
  MutexLock lock(&mutex_);
  if (!reader_.has_value()) return absl::OkStatus();
  absl::Status status = reader_->BeginRows(first_row, row_count, bytes, crc32c);
  for (const std::string_view piece : pieces) {
    if (!status.ok()) return status;
    status = reader_->Append(std::as_bytes(std::span(piece)));
  }
  return status.ok() ? reader_->EndRows() : status;
}

absl::Status IncomingBatch::Finish(int64_t rows) {
  MutexLock lock(&mutex_);
  return reader_.has_value() ? reader_->Finish(rows) : absl::OkStatus();
}

void IncomingBatch::Drop() {
  MutexLock lock(&mutex_);
  reader_.reset();
}

std::unique_ptr<Batch> IncomingBatch::Release() {
  MutexLock lock(&mutex_);
  return reader_.has_value() ? reader_->Release() : nullptr;
}

}  // namespace fisherd::core
