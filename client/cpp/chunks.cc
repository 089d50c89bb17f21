#include "client/cpp/chunks.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/crc32c.h"
#include "client/cpp/errors.h"

namespace fisherd {
namespace {

constexpr int64_t kMaxChunk = int64_t{1} << 20;

absl::Status Malformed(const std::string& message) {
  return MakeError(absl::StatusCode::kDataLoss, "MALFORMED_FRAME", message);
}

}  // namespace

ChunkAssembler::ChunkAssembler(std::vector<std::span<std::byte>> tensors, int64_t element_size)
    : tensors_(std::move(tensors)), element_size_(element_size) {
  for (const auto& tensor : tensors_) bytes_total_ += tensor.size();
}

absl::Status ChunkAssembler::Add(const v1::TensorChunk& chunk) {
  if (tensor_ == tensors_.size()) {
    return Malformed("a chunk came after the last element of the answer");
  }
  const int64_t expected = offset_ / element_size_;
  if (chunk.tensor() != static_cast<int>(tensor_) || chunk.first_element() != expected) {
    return Malformed(absl::StrCat("a chunk begins at element ", chunk.first_element(),
                                  " of tensor ", chunk.tensor(), ", expected element ", expected,
                                  " of tensor ", tensor_));
  }
  const std::span<std::byte> tensor = tensors_[tensor_];
  const int64_t left = static_cast<int64_t>(tensor.size()) - offset_;
  const int64_t bytes = chunk.data().size();
  if (bytes == 0 || bytes % element_size_ != 0 || bytes > left) {
    return Malformed(absl::StrCat("the chunk at element ", expected, " of tensor ", tensor_,
                                  " has ", bytes, " bytes, expected whole elements of ",
                                  element_size_, " bytes and at most ", left));
  }
  if (const uint32_t crc = Crc32c(chunk.data()); crc != chunk.crc32c()) {
    return MakeError(absl::StatusCode::kDataLoss, "CRC_MISMATCH",
                     absl::StrCat("the chunk at element ", expected, " of tensor ", tensor_,
                                  " was damaged on its way: crc32c ", absl::Hex(crc), ", expected ",
                                  absl::Hex(chunk.crc32c())));
  }
  std::memcpy(tensor.data() + offset_, chunk.data().data(), bytes);
  bytes_done_ += bytes;
  offset_ += bytes;
  if (bytes == left) {
    ++tensor_;
    offset_ = 0;
  }
  return absl::OkStatus();
}

absl::Status ChunkAssembler::Finish() const {
  if (bytes_done_ == bytes_total_) return absl::OkStatus();
  return Malformed(
      absl::StrCat("the answer ended after ", bytes_done_, " of ", bytes_total_, " bytes"));
}

ChunkCutter::ChunkCutter(std::vector<std::span<const std::byte>> tensors, int64_t element_size)
    : tensors_(std::move(tensors)), element_size_(element_size) {}

bool ChunkCutter::Next(v1::TensorChunk& chunk) {
  if (tensor_ == tensors_.size()) return false;
  const std::span<const std::byte> tensor = tensors_[tensor_];
  const int64_t bytes = std::min<int64_t>(kMaxChunk, tensor.size() - offset_);
  chunk.set_tensor(static_cast<int>(tensor_));
  chunk.set_first_element(offset_ / element_size_);
  chunk.set_data(tensor.data() + offset_, bytes);
  chunk.set_crc32c(Crc32c(chunk.data()));
  offset_ += bytes;
  if (offset_ == static_cast<int64_t>(tensor.size())) {
    ++tensor_;
    offset_ = 0;
  }
  return true;
}

}  // namespace fisherd
