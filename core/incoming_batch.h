// A batch on its way in, which may have to make room at any time.

#ifndef FISHERD_CORE_INCOMING_BATCH_H_
#define FISHERD_CORE_INCOMING_BATCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/batch_reader.h"
#include "core/clock.h"
#include "core/mutex.h"

namespace fisherd::core {

// From its header on. Filled by one thread; another may drop it meanwhile.
class IncomingBatch {
 public:
  // `rows` of its first tensor.
  IncomingBatch(BatchReader reader, int64_t rows, uint64_t label)
      : rows_(rows), label_(label), reader_(std::move(reader)) {}

  // One frame: see BatchReader. OK if the batch has been dropped: then the pieces are not looked
  // at.
  absl::Status AddRows(int64_t first_row, int64_t row_count, int64_t bytes,
                       std::span<const std::string_view> pieces, std::optional<uint32_t> crc32c);
  absl::Status Finish(int64_t rows);
  // Gives its memory back.
  void Drop();
  // The finished batch.
  std::unique_ptr<Batch> Release();

  int64_t rows() const { return rows_; }
  uint64_t label() const { return label_; }
  absl::Time began() const { return began_; }  // by the monotonic clock

 private:
  const int64_t rows_;
  const uint64_t label_;
  const absl::Time began_ = SteadyNow();
  Mutex mutex_;
  std::optional<BatchReader> reader_ ABSL_GUARDED_BY(mutex_);  // none: dropped
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_INCOMING_BATCH_H_
