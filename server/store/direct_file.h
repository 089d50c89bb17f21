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
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix.h"
#include "core/mutex.h"

namespace fisherd::server {

// Written from front to end with O_DIRECT where the file system has it; a large one by a thread of
// its own, while the caller prepares what follows. Not thread-safe.
class DirectFile {
 public:
  static constexpr size_t kBufferBytes = 4 << 20;  // a multiple of kBlock
  static constexpr size_t kBlock = 4096;  // what O_DIRECT wants everything to be a multiple of

  // There must be no such file yet. Errors as in disk_error.h, of every method.
  static absl::StatusOr<std::unique_ptr<DirectFile>> Create(const std::string& path);
  // Closes the file; one that is not finished stays as far as it was written.
  ~DirectFile();

  absl::Status Append(std::span<const std::byte> bytes);
  // The same of bytes that stay as they are until Finish: where their place in memory and in the
  // file allows, they are not copied, and written while the caller goes on.
  absl::Status AppendKept(std::span<const std::byte> bytes);
  // Writes the rest, and cuts the file to what was appended.
  absl::Status Finish();
  // After Finish: it is so after a crash too.
  absl::Status Sync();

 private:
  static constexpr size_t kBuffers = 3;
  static constexpr int64_t kThreadPays = 16 << 20;  // bytes; before, handing over costs more
  struct Piece {
    const std::byte* bytes = nullptr;
    size_t size = 0;
  };

  DirectFile(std::string path, int file);
  void Run();
  void WriteWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Writes all of the pieces from `offset` on; they are gone then.
  absl::Status WritePieces(std::vector<Piece>& pieces, int64_t offset);
  void HandOver(Piece piece) ABSL_LOCKS_EXCLUDED(mutex_);
  // Gives the buffer that is being filled to the thread, with so many bytes, and waits for the
  // next.
  absl::Status HandOverBuffer(size_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status AwaitWritten(int64_t pieces) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string path_;
  const int file_;
  std::array<core::AlignedArray<std::byte>, kBuffers> buffers_;
  std::array<int64_t, kBuffers> last_use_{};  // pieces handed over when the buffer was
  size_t buffer_ = 0;                         // that is being filled
  size_t used_ = 0;                           // of it
  int64_t handed_over_ = 0;                   // pieces
  int64_t handed_over_bytes_ = 0;
  int64_t size_ = 0;

  core::Mutex mutex_;
  core::CondVar changed_;
  std::vector<Piece> pieces_ ABSL_GUARDED_BY(mutex_);  // to be written
  int64_t written_ ABSL_GUARDED_BY(mutex_) = 0;        // pieces
  int64_t written_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// What was renamed, made or removed in a directory is so after a crash too.
absl::Status SyncDirectory(const std::string& path);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_DIRECT_FILE_H_
