#include "server/store/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
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
  if (direct->buffer_ == nullptr) return absl::ResourceExhaustedError("no memory to write a file");
  return direct;
}

DirectFile::DirectFile(std::string path, int file)
    : path_(std::move(path)), file_(file), buffer_(NewBuffer()) {}

DirectFile::~DirectFile() { close(file_); }

void DirectFile::AddBuffered() {
  if (used_ > in_pieces_) pieces_.push_back({buffer_.get() + in_pieces_, used_ - in_pieces_});
  in_pieces_ = used_;
}

absl::Status DirectFile::Flush() {
  AddBuffered();
  auto piece = pieces_.begin();
  while (piece != pieces_.end()) {
    const auto count = std::min<std::ptrdiff_t>(pieces_.end() - piece, IOV_MAX);
    const ssize_t written = pwritev(file_, &*piece, static_cast<int>(count), written_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(absl::StrCat("cannot write ", path_));
    if (written == 0) return DiskFailed(absl::StrCat("cannot write ", path_, ": nothing is taken"));
    written_ += written;
    auto left = static_cast<size_t>(written);
    for (; piece != pieces_.end() && left >= piece->iov_len; ++piece) left -= piece->iov_len;
    if (left > 0) *piece = {static_cast<std::byte*>(piece->iov_base) + left, piece->iov_len - left};
    // After a short write the rest is not aligned as O_DIRECT wants it.
    if (written % kBlock != 0) fcntl(file_, F_SETFL, fcntl(file_, F_GETFL) & ~O_DIRECT);
  }
  pieces_.clear();
  used_ = in_pieces_ = kept_ = 0;
  return absl::OkStatus();
}

absl::Status DirectFile::Append(std::span<const std::byte> bytes) {
  size_ += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kBufferBytes - used_);
    std::memcpy(buffer_.get() + used_, bytes.data(), count);
    used_ += count;
    bytes = bytes.subspan(count);
    if (used_ < kBufferBytes) continue;
    if (absl::Status status = Flush(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DirectFile::AppendKept(std::span<const std::byte> bytes) {
  const bool aligned =
      used_ % kBlock == 0 && reinterpret_cast<uintptr_t>(bytes.data()) % kBlock == 0;
  const size_t whole = bytes.size() / kBlock * kBlock;
  if (!aligned || whole == 0) return Append(bytes);
  AddBuffered();
  pieces_.push_back({const_cast<std::byte*>(bytes.data()), whole});
  size_ += static_cast<int64_t>(whole);
  kept_ += whole;
  if (kept_ >= kMuch) {
    if (absl::Status status = Flush(); !status.ok()) return status;
  }
  return Append(bytes.subspan(whole));
}

absl::Status DirectFile::Finish() {
  const size_t whole = (used_ + kBlock - 1) / kBlock * kBlock;
  std::memset(buffer_.get() + used_, 0, whole - used_);
  used_ = whole;
  if (absl::Status status = Flush(); !status.ok()) return status;
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
