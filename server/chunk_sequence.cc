#include "server/chunk_sequence.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "absl/strings/str_format.h"
#include "core/batch_reader.h"
#include "core/error.h"

namespace fisherd::server {
namespace {

absl::Status Malformed(std::string_view message) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kMalformedFrame, message,
                         {{"field", "chunk"}});
}

}  // namespace

ChunkSequence::ChunkSequence(const std::vector<core::TensorSpec>& tensors)
    : element_bytes_(core::SizeOf(tensors.front().dtype)) {
  for (const core::TensorSpec& tensor : tensors) {
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    elements_.push_back(elements);
  }
}

int64_t ChunkSequence::max_elements() const {
  return std::min(kMaxChunkBytes / element_bytes_, elements_[tensor_] - first_element_);
}

void ChunkSequence::Advance(int64_t elements) {
  first_element_ += elements;
  if (first_element_ < elements_[tensor_]) return;
  first_element_ = 0;
  ++tensor_;
}

absl::Status ChunkSequence::Check(const v1::TensorChunk& chunk) const {
  if (done()) return Malformed("a chunk follows the last one; expected the end of the stream");
  if (chunk.tensor() != tensor() || chunk.first_element() != first_element_) {
    return Malformed(absl::StrFormat(
        "the chunk begins at element %d of tensor %d; expected element %d of tensor %d",
        chunk.first_element(), chunk.tensor(), first_element_, tensor()));
  }
  const int64_t bytes = chunk.data().size();
  if (bytes == 0 || bytes > kMaxChunkBytes || bytes % element_bytes_ != 0) {
    return Malformed(absl::StrFormat(
        "the chunk at element %d of tensor %d has %d bytes; expected whole elements of %d bytes "
        "each, at least one and at most %d bytes in all",
        first_element_, tensor(), bytes, element_bytes_, kMaxChunkBytes));
  }
  const int64_t left = elements_[tensor_] - first_element_;
  if (bytes / element_bytes_ > left) {
    return Malformed(absl::StrFormat(
        "the chunk at element %d of tensor %d has %d elements; the tensor has %d left",
        first_element_, tensor(), bytes / element_bytes_, left));
  }
  const uint32_t crc32c = core::Crc32c(0, std::as_bytes(std::span(chunk.data())));
  if (chunk.crc32c() != crc32c) {
    return Malformed(absl::StrFormat(
        "the chunk at element %d of tensor %d came with crc32c %08x, but its bytes have %08x",
        first_element_, tensor(), chunk.crc32c(), crc32c));
  }
  return absl::OkStatus();
}

absl::Status ChunkSequence::CheckDone() const {
  if (done()) return absl::OkStatus();
  return Malformed(
      absl::StrFormat("the stream ended at element %d of tensor %d; expected %d more of it",
                      first_element_, tensor(), elements_[tensor_] - first_element_));
}

}  // namespace fisherd::server
