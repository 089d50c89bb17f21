// Tensors in chunks: cutting those of an argument, putting those of an answer together.

#ifndef FISHERD_CLIENT_CHUNKS_H_
#define FISHERD_CLIENT_CHUNKS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "fisherd/v1/types.pb.h"

namespace fisherd {

// Not thread-safe.
class ChunkAssembler {
 public:
  // Where the elements of the header's tensors go, in its order; the memory outlives this.
  ChunkAssembler(std::vector<std::span<std::byte>> tensors, int64_t element_size);

  // DATA_LOSS unless the chunk follows on the one before, fits its tensor and is undamaged
  // (MALFORMED_FRAME, CRC_MISMATCH).
  absl::Status Add(const v1::TensorChunk& chunk);

  // DATA_LOSS (MALFORMED_FRAME) unless everything has come.
  absl::Status Finish() const;

  bool done() const { return tensor_ == tensors_.size(); }
  int64_t bytes_done() const { return bytes_done_; }
  int64_t bytes_total() const { return bytes_total_; }

 private:
  const std::vector<std::span<std::byte>> tensors_;
  const int64_t element_size_;
  size_t tensor_ = 0;   // where the next byte belongs
  int64_t offset_ = 0;  // in that tensor
  int64_t bytes_done_ = 0;
  int64_t bytes_total_ = 0;
};

// Cuts tensors into chunks of at most 1 MiB. Not thread-safe.
class ChunkCutter {
 public:
  // The memory outlives this.
  ChunkCutter(std::vector<std::span<const std::byte>> tensors, int64_t element_size);

  // The next chunk; false when there is none.
  bool Next(v1::TensorChunk& chunk);

 private:
  const std::vector<std::span<const std::byte>> tensors_;
  const int64_t element_size_;
  size_t tensor_ = 0;
  int64_t offset_ = 0;
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_CHUNKS_H_
