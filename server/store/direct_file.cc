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
  thread_ = std::thread([this] { Run(); });
}

DirectFile::~DirectFile() {
  {
    core::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
  close(file_);
}

absl::Status DirectFile::WriteBuffer(const std::byte* bytes, size_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t written = pwrite(file_, bytes, size, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(absl::StrCat("cannot write ", path_));
    if (written == 0) return DiskFailed(absl::StrCat("cannot write ", path_, ": nothing is taken"));
    bytes += written;
    size -= written;
    offset += written;
    // After a short write the rest is not aligned as O_DIRECT wants it.
    if (size > 0 && written % kBlock != 0) fcntl(file_, F_SETFL, fcntl(file_, F_GETFL) & ~O_DIRECT);
  }
  return absl::OkStatus();
}

void DirectFile::Run() {
  for (;;) {
    int64_t index;
    size_t size;
    {
      core::MutexLock lock(&mutex_);
      while (written_ == to_write_ && !stopping_) changed_.Wait(&mutex_);
      if (written_ == to_write_) return;
      index = written_;
      size = index + 1 == to_write_ ? last_size_ : kBufferBytes;
    }
    absl::Status status = WriteBuffer(buffers_[index % kBuffers].get(), size,
                                      index * static_cast<int64_t>(kBufferBytes));
    core::MutexLock lock(&mutex_);
    status_.Update(std::move(status));
    ++written_;
    changed_.NotifyAll();
  }
}

absl::Status DirectFile::HandOver(size_t size) {
  core::MutexLock lock(&mutex_);
  ++filled_;
  to_write_ = filled_;
  last_size_ = size;
  changed_.NotifyAll();
  while (to_write_ - written_ >= static_cast<int64_t>(kBuffers)) changed_.Wait(&mutex_);
  used_ = 0;
  return status_;
}

absl::Status DirectFile::Append(std::span<const std::byte> bytes) {
  size_ += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kBufferBytes - used_);
    std::memcpy(buffers_[filled_ % kBuffers].get() + used_, bytes.data(), count);
    used_ += count;
    bytes = bytes.subspan(count);
    if (used_ < kBufferBytes) continue;
    if (absl::Status status = HandOver(kBufferBytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DirectFile::Finish() {
  const size_t rest = used_;
  if (rest > 0) {
    const size_t whole = (rest + kBlock - 1) / kBlock * kBlock;
    std::memset(buffers_[filled_ % kBuffers].get() + rest, 0, whole - rest);
    if (absl::Status status = HandOver(whole); !status.ok()) return status;
  }
  {
    core::MutexLock lock(&mutex_);
    while (written_ < to_write_) changed_.Wait(&mutex_);
    if (!status_.ok()) return status_;
  }
  if (ftruncate(file_, size_) != 0) return ErrnoStatus(absl::StrCat("cannot cut ", path_));
  if (fdatasync(file_) != 0) {
    // An allocation that was put off may find no space: a file of ours alone, that nobody knows
    // yet.
    if (errno == ENOSPC || errno == EDQUOT) return ErrnoStatus(absl::StrCat("cannot sync ", path_));
    return SyncFailed(absl::StrCat(path_, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
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
