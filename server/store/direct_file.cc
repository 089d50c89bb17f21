#include "server/store/direct_file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/store/disk_error.h"

namespace fisherd::server {
namespace {

constexpr size_t kMaxParts = 16;

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

absl::Status DirectFile::WritePieces(std::vector<Piece>& pieces, int64_t offset) {
  while (!pieces.empty()) {
    iovec parts[kMaxParts];
    const size_t count = std::min(pieces.size(), kMaxParts);
    for (size_t i = 0; i < count; ++i) {
      parts[i] = {const_cast<std::byte*>(pieces[i].bytes), pieces[i].size};
    }
    const ssize_t written = pwritev(file_, parts, static_cast<int>(count), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(absl::StrCat("cannot write ", path_));
    if (written == 0) return DiskFailed(absl::StrCat("cannot write ", path_, ": nothing is taken"));
    offset += written;
    auto left = static_cast<size_t>(written);
    auto piece = pieces.begin();
    for (; piece != pieces.end() && left >= piece->size; ++piece) left -= piece->size;
    if (left > 0) *piece = {piece->bytes + left, piece->size - left};
    pieces.erase(pieces.begin(), piece);
    // After a short write the rest is not aligned as O_DIRECT wants it.
    if (written % kBlock != 0) fcntl(file_, F_SETFL, fcntl(file_, F_GETFL) & ~O_DIRECT);
  }
  return absl::OkStatus();
}

void DirectFile::WriteWaiting() {
  std::vector<Piece> pieces = std::exchange(pieces_, {});
  const auto count = std::ssize(pieces);
  const int64_t offset = written_bytes_;
  for (const Piece& piece : pieces) written_bytes_ += static_cast<int64_t>(piece.size);
  absl::Status status = status_;
  mutex_.Unlock();
  if (status.ok()) status = WritePieces(pieces, offset);
  mutex_.Lock();
  status_ = std::move(status);
  written_ += count;
  changed_.NotifyAll();
}

void DirectFile::Run() {
  core::MutexLock lock(&mutex_);
  for (;;) {
    while (pieces_.empty() && !stopping_) changed_.Wait(&mutex_);
    if (pieces_.empty()) return;
    WriteWaiting();
  }
}

void DirectFile::HandOver(Piece piece) {
  handed_over_bytes_ += static_cast<int64_t>(piece.size);
  ++handed_over_;
  core::MutexLock lock(&mutex_);
  pieces_.push_back(piece);
  changed_.NotifyAll();
  if (handed_over_bytes_ > kThreadPays && !thread_.joinable()) {
    thread_ = std::thread([this] { Run(); });
  }
}

absl::Status DirectFile::AwaitWritten(int64_t pieces) {
  core::MutexLock lock(&mutex_);
  if (written_ < pieces && !thread_.joinable()) WriteWaiting();
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
