#include "server/shared_regions.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

// Its size. Whoever could shrink it would end the server by SIGBUS; so would whoever has huge
// pages, of which there may be none left when a hole is read.
absl::StatusOr<int64_t> CheckMemory(int fd) {
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
  const int seals = fcntl(fd, F_GET_SEALS);
  struct statfs file_system;
  if (seals < 0 || fstatfs(fd, &file_system) != 0 || file_system.f_type != TMPFS_MAGIC) {
    return absl::InvalidArgumentError(
        "the file descriptor is not one of memfd_create with ordinary pages");
  }
  if ((seals & kSeals) != kSeals) {
    return absl::InvalidArgumentError(
        "the memory is not sealed: add F_SEAL_SHRINK and F_SEAL_GROW");
  }
  struct stat file;
  if (fstat(fd, &file) != 0 || file.st_size < 1) {
    return absl::InvalidArgumentError("the memory is empty");
  }
  return file.st_size;
}

}  // namespace

SharedRegion::~SharedRegion() {
  munmap(const_cast<char*>(memory_), static_cast<size_t>(size_));
  *in_use_ -= size_;
}

absl::StatusOr<std::string> SharedRegions::Add(int fd) {
  const absl::StatusOr<int64_t> size = CheckMemory(fd);
  if (!size.ok()) return size.status();
  int64_t in_use = *in_use_;
  do {
    if (*size > limit_ - in_use) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the memory is ", *size, " bytes; the server takes ", limit_,
                       " bytes of all its clients together, and has ", in_use));
    }
  } while (!in_use_->compare_exchange_weak(in_use, in_use + *size));
  void* const memory = mmap(nullptr, static_cast<size_t>(*size), PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    *in_use_ -= *size;
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", *size, " bytes: ", std::strerror(error)));
  }
  auto region =
      std::make_shared<const SharedRegion>(static_cast<const char*>(memory), *size, in_use_);
  std::string token = RandomToken();
  core::MutexLock lock(&mutex_);
  regions_.emplace(token, std::move(region));
  return token;
}

void SharedRegions::Remove(std::string_view token) {
  std::shared_ptr<const SharedRegion> removed;  // unmapped after the lock
  core::MutexLock lock(&mutex_);
  const auto found = regions_.find(token);
  if (found == regions_.end()) return;
  removed = std::move(found->second);
  regions_.erase(found);
}

std::shared_ptr<const SharedRegion> SharedRegions::Find(std::string_view token) const {
  core::MutexLock lock(&mutex_);
  const auto found = regions_.find(token);
  return found == regions_.end() ? nullptr : found->second;
}

std::string RandomToken() {
  std::string token(SharedRegions::kTokenBytes, '\0');
  if (getrandom(token.data(), token.size(), 0) != SharedRegions::kTokenBytes) {
    LogError("the system has no random numbers");
    std::abort();
  }
  return token;
}

}  // namespace fisherd::server
