// A new file, written past the page cache.

#ifndef FISHERD_SERVER_STORE_DIRECT_FILE_H_
#define FISHERD_SERVER_STORE_DIRECT_FILE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix.h"
#include "core/mutex.h"

namespace fisherd::server {

// Written from front to end with O_DIRECT where the file system has it; a thread of its own writes
// one buffer while the next is filled. Not thread-safe.
class DirectFile {
 public:
  static constexpr size_t kBufferBytes = 4 << 20;  // a multiple of kBlock
  static constexpr size_t kBlock = 4096;  // what O_DIRECT wants everything to be a multiple of

  // There must be no such file yet. Errors as in disk_error.h, of every method.
  static absl::StatusOr<std::unique_ptr<DirectFile>> Create(const std::string& path);
  // Closes the file; one that is not finished stays as far as it was written.
  ~DirectFile();

  absl::Status Append(std::span<const std::byte> bytes);
  // Writes the rest, cuts the file to what was appended, and syncs it.
  absl::Status Finish();

 private:
  static constexpr size_t kBuffers = 3;

  DirectFile(std::string path, int file);
  void Run();
  absl::Status WriteBuffer(const std::byte* bytes, size_t size, int64_t offset);
  // Gives the buffer that is being filled to the thread, and waits for the next.
  absl::Status HandOver(size_t size);

  const std::string path_;
  const int file_;
  std::array<core::AlignedArray<std::byte>, kBuffers> buffers_;
  int64_t filled_ = 0;  // buffers handed over
  size_t used_ = 0;     // of the one that is being filled
  int64_t size_ = 0;

  core::Mutex mutex_;
  core::CondVar changed_;
  int64_t to_write_ ABSL_GUARDED_BY(mutex_) = 0;  // buffers, in turn
  int64_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t last_size_ ABSL_GUARDED_BY(mutex_) = kBufferBytes;  // of the last of them
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// What was renamed, made or removed in a directory is so after a crash too.
absl::Status SyncDirectory(const std::string& path);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_DIRECT_FILE_H_
