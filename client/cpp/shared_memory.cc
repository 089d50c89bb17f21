#include "client/cpp/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fisherd {
namespace {

// Blocks begin at pages: a page is one block's, so that it is as warm as the block.
constexpr int64_t kPage = 4096;

// Never to be executed, which some systems demand (Linux 6.3) and others do not know.
int CreateFile() {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  constexpr unsigned kNoExecSeal = 8;  // MFD_NOEXEC_SEAL
  const int fd = memfd_create("fisherd-batches", kFlags | kNoExecSeal);
  return fd >= 0 ? fd : memfd_create("fisherd-batches", kFlags);
}

absl::Status Failed(absl::string_view what) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot ", what, " memory to share: ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::shared_ptr<SharedMemory>> SharedMemory::Create(int64_t bytes) {
  const int64_t size = (bytes + kPage - 1) / kPage * kPage;
  const int fd = CreateFile();
  if (fd < 0) return Failed("make");
  if (ftruncate(fd, size) != 0) {
    const absl::Status status = Failed("size");
    close(fd);
    return status;
  }
  void* const memory =
      mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = Failed("map");
    close(fd);
    return status;
  }
  std::shared_ptr<SharedMemory> shared(new SharedMemory(fd, static_cast<std::byte*>(memory), size));
  fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);  // Linux 5.1: others can only read
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return Failed("seal");
  return shared;
}

SharedMemory::SharedMemory(int fd, std::byte* memory, int64_t size)
    : fd_(fd), memory_(memory), size_(size) {
  MutexLock lock(&mutex_);
  free_.emplace(0, size);
  free_bytes_ = size;
}

SharedMemory::~SharedMemory() {
  munmap(memory_, static_cast<size_t>(size_));
  close(fd_);
}

std::unique_ptr<SharedBlock> SharedMemory::Take(int64_t bytes, Use use) {
  const int64_t size = (bytes + kPage - 1) / kPage * kPage;
  int64_t offset = 0;
  {
    MutexLock lock(&mutex_);
    // The first that fits: what was written before is written again, and the rest stays untouched.
    auto found = free_.begin();
    while (found != free_.end() && found->second < size) ++found;
    if (found == free_.end()) return nullptr;
    offset = found->first;
    const int64_t rest = found->second - size;
    free_.erase(found);
    if (rest > 0) free_.emplace(offset + size, rest);
    free_bytes_ -= size;
  }
  return std::unique_ptr<SharedBlock>(
      new SharedBlock(shared_from_this(), std::move(use), offset, size));
}

void SharedMemory::Leave(Left left) {
  MutexLock lock(&mutex_);
  if (HasEnded(left.use)) {
    Free(left.offset, left.size);
  } else {
    left_.push_back(std::move(left));
  }
}

bool SharedMemory::HasEnded(const Use& use) const {
  const auto ended = ended_.find(use.tower);
  return ended != ended_.end() &&
         (use.incarnation != ended->second.incarnation || use.step < ended->second.next);
}

void SharedMemory::OnEnded(const Tower& tower, uint64_t incarnation, int64_t next) {
  MutexLock lock(&mutex_);
  ended_[tower] = {.incarnation = incarnation, .next = next};
  FreeLeft(/*all=*/false);
}

void SharedMemory::OnNewStream() {
  MutexLock lock(&mutex_);
  ended_.clear();  // another epoch may have lost what had ended
  FreeLeft(/*all=*/true);
}

void SharedMemory::FreeLeft(bool all) {
  std::vector<Left> still;
  for (Left& left : left_) {
    if (all || HasEnded(left.use)) {
      Free(left.offset, left.size);
    } else {
      still.push_back(std::move(left));
    }
  }
  left_ = std::move(still);
}

void SharedMemory::Free(int64_t offset, int64_t size) {
  free_bytes_ += size;
  auto after = free_.lower_bound(offset);
  if (after != free_.end() && offset + size == after->first) {
    size += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += size;
      return;
    }
  }
  free_.emplace_hint(after, offset, size);
}

int64_t SharedMemory::bytes_in_use() const {
  MutexLock lock(&mutex_);
  return size_ - free_bytes_;
}

}  // namespace fisherd
