// Memory as clients hand it in, and as they should not.

#ifndef FISHERD_TESTS_SERVER_MEMORY_FILE_H_
#define FISHERD_TESTS_SERVER_MEMORY_FILE_H_

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string_view>

#include "gtest/gtest.h"

namespace fisherd::server {

inline constexpr int kRightSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A memfd; closed at the end.
class MemoryFile {
 public:
  explicit MemoryFile(int64_t size, int seals = kRightSeals)
      : fd_(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    EXPECT_EQ(ftruncate(fd_, size), 0);
    EXPECT_EQ(fcntl(fd_, F_ADD_SEALS, seals), 0);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int fd() const { return fd_; }
  void Write(int64_t offset, std::string_view bytes) {
    EXPECT_EQ(pwrite(fd_, bytes.data(), bytes.size(), offset), std::ssize(bytes));
  }

 private:
  const int fd_;
};

}  // namespace fisherd::server

#endif  // FISHERD_TESTS_SERVER_MEMORY_FILE_H_
