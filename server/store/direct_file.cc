#include "server/store/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/store/disk_error.h"

namespace fisherd::server {
namespace {

core::AlignedArray<std::byte> NewBuffer() {
  void* memory = nullptr;
  if (posix_memalign(&memory, DirectFile::kBlock, DirectFile::kBufferBytes) != 0) memory = nullptr;
  return core::AlignedArray<std::byte>(static_cast<std::byte*>(memory));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectFile>> DirectFile::Create(const std::string& path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  int file = open(path.c_str(), kFlags | O_DIRECT, 0600);
  if (file < 0 &&
      errno == EINVAL) {  // tmpfs has no O_DIRECT, and may have made the file all the same
    unlink(path.c_str());
    file = open(path.c_str(), kFlags, 0600);
  }
  if (file < 0) return ErrnoStatus(absl::StrCat("cannot create ", path));
  std::unique_ptr<DirectFile> direct(new DirectFile(path, file));
  for (const auto& buffer : direct->buffers_) {
    if (buffer == nullptr) return absl::ResourceExhaustedError("no memory to write a file");
  }
  return direct;
}

DirectFile::DirectFile(std::string path, int file) : path_(std::move(path)), file_(file) {
  for (auto& buffer : buffers_) buffer = NewBuffer();
}

DirectFile::~DirectFile() {
  {
    core::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
  close(file_);
}

absl::Status DirectFile::WritePiece(Piece piece, int64_t offset) {
  while (piece.size > 0) {
    const ssize_t written = pwrite(file_, piece.bytes, piece.size, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(absl::StrCat("cannot write ", path_));
    if (written == 0) return DiskFailed(absl::StrCat("cannot write ", path_, ": nothing is taken"));
    piece.bytes += written;
    piece.size -= written;
    offset += written;
    // After a short write the rest is not aligned as O_DIRECT wants it.
    if (piece.size > 0 && written % kBlock != 0) {
      fcntl(file_, F_SETFL, fcntl(file_, F_GETFL) & ~O_DIRECT);
    }
  }
  return absl::OkStatus();
}

void DirectFile::Run(int64_t offset) {
  for (;;) {
    Piece piece;
    bool failed;
    {
      core::MutexLock lock(&mutex_);
      while (pieces_.empty() && !stopping_) changed_.Wait(&mutex_);
      if (pieces_.empty()) return;
      piece = pieces_.front();
      pieces_.pop_front();
      failed = !status_.ok();
    }
    absl::Status status = failed ? absl::OkStatus() : WritePiece(piece, offset);
    offset += static_cast<int64_t>(piece.size);
    core::MutexLock lock(&mutex_);
    status_.Update(std::move(status));
    ++written_;
    changed_.NotifyAll();
  }
}

void DirectFile::HandOver(Piece piece) {
  const int64_t offset = handed_over_bytes_;
  handed_over_bytes_ += static_cast<int64_t>(piece.size);
  ++handed_over_;
  if (handed_over_bytes_ > kThreadPays && !thread_.joinable()) {
    thread_ = std::thread([this, offset] { Run(offset); });
  }
  core::MutexLock lock(&mutex_);
  if (thread_.joinable()) {
    pieces_.push_back(piece);
    changed_.NotifyAll();
  } else {
    if (status_.ok()) status_ = WritePiece(piece, offset);
    ++written_;
  }
}

absl::Status DirectFile::AwaitWritten(int64_t pieces) {
  core::MutexLock lock(&mutex_);
  while (written_ < pieces) changed_.Wait(&mutex_);
  return status_;
}

absl::Status DirectFile::HandOverBuffer(size_t size) {
  HandOver({buffers_[buffer_].get(), size});
  last_use_[buffer_] = handed_over_;
  buffer_ = (buffer_ + 1) % kBuffers;
  used_ = 0;
  return AwaitWritten(last_use_[buffer_]);
}

absl::Status DirectFile::Append(std::span<const std::byte> bytes) {
  size_ += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kBufferBytes - used_);
    std::memcpy(buffers_[buffer_].get() + used_, bytes.data(), count);
    used_ += count;
    bytes = bytes.subspan(count);
    if (used_ < kBufferBytes) continue;
    if (absl::Status status = HandOverBuffer(kBufferBytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DirectFile::AppendKept(std::span<const std::byte> bytes) {
  const bool aligned =
      used_ % kBlock == 0 && reinterpret_cast<uintptr_t>(bytes.data()) % kBlock == 0;
  if (!aligned || bytes.size() < kBufferBytes) return Append(bytes);
  if (used_ > 0) {
    if (absl::Status status = HandOverBuffer(used_); !status.ok()) return status;
  }
  while (bytes.size() >= kBlock) {
    const size_t count = std::min(bytes.size() / kBlock * kBlock, kBufferBytes);
    HandOver({bytes.data(), count});
    size_ += static_cast<int64_t>(count);
    bytes = bytes.subspan(count);
  }
  return Append(bytes);
}

absl::Status DirectFile::Finish() {
  if (used_ > 0) {
    const size_t whole = (used_ + kBlock - 1) / kBlock * kBlock;
    std::memset(buffers_[buffer_].get() + used_, 0, whole - used_);
    if (absl::Status status = HandOverBuffer(whole); !status.ok()) return status;
  }
  if (absl::Status status = AwaitWritten(handed_over_); !status.ok()) return status;
  if (ftruncate(file_, size_) != 0) return ErrnoStatus(absl::StrCat("cannot cut ", path_));
  return absl::OkStatus();
}

absl::Status DirectFile::Sync() {
  if (fdatasync(file_) == 0) return absl::OkStatus();
  // An allocation that was put off may find no space: of a file that nobody knows yet.
  if (errno == ENOSPC || errno == EDQUOT) return ErrnoStatus(absl::StrCat("cannot sync ", path_));
  return SyncFailed(absl::StrCat(path_, ": ", std::strerror(errno)));
}

absl::Status SyncDirectory(const std::string& path) {
  const int directory = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return ErrnoStatus(absl::StrCat("cannot open ", path));
  absl::Status status;
  if (fsync(directory) != 0) status = SyncFailed(absl::StrCat(path, ": ", std::strerror(errno)));
  close(directory);
  return status;
}

}  // namespace fisherd::server
