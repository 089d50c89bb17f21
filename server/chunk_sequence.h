// Where the next chunk of a run of tensors belongs: all of tensor 0 in order, then all of tensor 1.

#ifndef FISHERD_SERVER_CHUNK_SEQUENCE_H_
#define FISHERD_SERVER_CHUNK_SEQUENCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/tensor.h"
#include "fisherd/v1/types.pb.h"

namespace fisherd::server {

// Bytes of one chunk's elements, sent or taken.
inline constexpr int64_t kMaxChunkBytes = int64_t{1} << 20;

// Not thread-safe.
class ChunkSequence {
 public:
  // Done from the start.
  ChunkSequence() = default;
  // `tensors` are those of an operator: of one element type, with at least one element each.
  explicit ChunkSequence(const std::vector<core::TensorSpec>& tensors);

  bool done() const { return tensor_ == elements_.size(); }
  // Of the next chunk, unless done().
  int tensor() const { return static_cast<int>(tensor_); }
  int64_t first_element() const { return first_element_; }
  // The most that it may hold.
  int64_t max_elements() const;

  void Advance(int64_t elements);

  // Whether `chunk` is the next one: its place, a whole number of elements, at least one and at
  // most kMaxChunkBytes, within its tensor, undamaged. INVALID_ARGUMENT (MALFORMED_FRAME).
  absl::Status Check(const v1::TensorChunk& chunk) const;
  // The same error unless done().
  absl::Status CheckDone() const;

 private:
  int64_t element_bytes_ = 1;
  std::vector<int64_t> elements_;  // by tensor
  size_t tensor_ = 0;
  int64_t first_element_ = 0;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_CHUNK_SEQUENCE_H_
