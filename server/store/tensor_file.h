// Tensors in a file of the safetensors layout (github.com/huggingface/safetensors, format):
//
//   8 bytes   length of the header, little-endian; with it a multiple of 4096
//   header    JSON: a name → dtype, shape, offsets of its bytes from the header's end;
//             "__metadata__" → strings; spaces to its length
//   tensors   one after the other, without gaps, little-endian and row-major
//
// The last tensor, "checksums" (U32), has the CRC-32C of the header with its length, then of each
// MiB of every tensor before it in their order, then of its own numbers so far.

#ifndef FISHERD_SERVER_STORE_TENSOR_FILE_H_
#define FISHERD_SERVER_STORE_TENSOR_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix.h"
#include "fisherd/store/v1/records.pb.h"

namespace fisherd::server {

inline constexpr int64_t kChecksumBytes = 1 << 20;  // of a tensor for each of its checksums

struct NamedMatrix {
  std::string name;  // no two of a file have the same; none is "checksums" or "__metadata__"
  const core::Matrix* matrix = nullptr;
};

// Writes one file. Not thread-safe.
class TensorFileWriter {
 public:
  // The matrices stay as they are as long as this does. A thread begins with their checksums.
  explicit TensorFileWriter(std::vector<NamedMatrix> tensors);

  // Writes directory/name, which is there whole and synced when this returns, or not at all (after
  // a crash perhaps in part: what refers to it is written later); a file that is there already is
  // replaced. Answers where each tensor is. Errors as in disk_error.h. Once.
  absl::StatusOr<std::vector<store::v1::Place>> Write(
      const std::string& directory, const std::string& name,
      const std::map<std::string, std::string>& metadata);

 private:
  absl::Status WriteAll(const std::string& path, const std::string& header,
                        std::vector<store::v1::Place>& places);

  // Of blocks, until all are taken; on several threads at a time.
  void ComputeChecksums();

  const std::vector<NamedMatrix> tensors_;
  std::vector<std::span<const std::byte>> blocks_;  // of all tensors: what has one checksum
  std::vector<uint32_t> checksums_;
  std::atomic<size_t> next_block_ = 0;  // that nobody has taken
  std::future<void> helper_;
};

// Fills `matrix` from its place. DATA_LOSS (STATE_DAMAGED) if the file is not there, is too short,
// or has other bytes than were written.
absl::Status ReadTensor(const std::string& path, const store::v1::Place& place,
                        core::Matrix& matrix);

// What a file says of itself.
struct TensorFileHeader {
  struct Tensor {
    core::MatrixShape shape;  // of two dimensions
    store::v1::Place place;
  };
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;  // but for the checksums, which their places have
};

// Of a file that may be anyone's: INVALID_ARGUMENT unless it is one that WriteTensorFile could have
// written.
absl::StatusOr<TensorFileHeader> ReadTensorFileHeader(const std::string& path);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_TENSOR_FILE_H_
