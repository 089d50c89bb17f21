// A new file, written past the page cache.

#ifndef FISHERD_SERVER_STORE_DIRECT_FILE_H_
#define FISHERD_SERVER_STORE_DIRECT_FILE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix.h"

namespace fisherd::server {

// Written from front to end, in few and large writes, with O_DIRECT where the file system has it.
// Not thread-safe.
class DirectFile {
 public:
  static constexpr size_t kBufferBytes = 4 << 20;  // a multiple of kBlock
  static constexpr size_t kBlock = 4096;     // what O_DIRECT wants everything to be a multiple of
  static constexpr size_t kMuch = 16 << 20;  // of kept bytes: written without waiting for more

  // There must be no such file yet. Errors as in disk_error.h, of every method.
  static absl::StatusOr<std::unique_ptr<DirectFile>> Create(const std::string& path);
  // Closes the file; one that is not finished stays as far as it was written.
  ~DirectFile();

  absl::Status Append(std::span<const std::byte> bytes);
  // The same of bytes that stay as they are until Finish: where their place in memory and in the
  // file allows, they are not copied.
  absl::Status AppendKept(std::span<const std::byte> bytes);
  // Writes the rest, and cuts the file to what was appended.
  absl::Status Finish();
  // After Finish: it is so after a crash too.
  absl::Status Sync();

 private:
  DirectFile(std::string path, int file);
  // What is in the buffer and in no piece yet becomes one.
  void AddBuffered();
  // Writes all pieces; the buffer is empty then.
  absl::Status Flush();

  const std::string path_;
  const int file_;
  const core::AlignedArray<std::byte> buffer_;
  size_t used_ = 0;            // of the buffer
  size_t in_pieces_ = 0;       // of what is used
  size_t kept_ = 0;            // bytes in pieces that are not the buffer's
  std::vector<iovec> pieces_;  // to be written, in their order
  int64_t written_ = 0;
  int64_t size_ = 0;  // appended
};

// What was renamed, made or removed in a directory is so after a crash too.
absl::Status SyncDirectory(const std::string& path);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_DIRECT_FILE_H_
