// Memory of trainers on this machine that the server reads in place.

#ifndef FISHERD_SERVER_SHARED_REGIONS_H_
#define FISHERD_SERVER_SHARED_REGIONS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/mutex.h"

namespace fisherd::server {

// A client's memory, mapped to be read. It is as large as it was for ever, so that reading it is
// safe; but its owner may write at any moment: read every byte once, and believe nothing of it.
class SharedRegion {
 public:
  SharedRegion(const char* memory, int64_t size, std::shared_ptr<std::atomic<int64_t>> in_use)
      : memory_(memory), size_(size), in_use_(std::move(in_use)) {}
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  int64_t size() const { return size_; }
  // `offset` and `size` must lie within it.
  std::string_view bytes(int64_t offset, int64_t size) const {
    return {memory_ + offset, static_cast<size_t>(size)};
  }

 private:
  const char* const memory_;
  const int64_t size_;
  const std::shared_ptr<std::atomic<int64_t>> in_use_;  // less when it goes
};

// Those that there are, by tokens that nobody can guess. Thread-safe.
class SharedRegions {
 public:
  static constexpr int kTokenBytes = 16;

  // Of all regions at most `limit` bytes, mapped or about to be unmapped.
  explicit SharedRegions(int64_t limit) : limit_(limit) {}

  // Maps what `fd` stands for, which stays the caller's and is not needed afterwards. Returns the
  // token.
  //   INVALID_ARGUMENT    it is not a memfd of ordinary pages, sealed against shrinking and
  //                       growing; or empty
  //   RESOURCE_EXHAUSTED  it is more than the limit has room for, or cannot be mapped
  absl::StatusOr<std::string> Add(int fd);

  // Forgets it. It is unmapped when the last who has found it lets go.
  void Remove(std::string_view token);

  // Null if there is none of that token.
  std::shared_ptr<const SharedRegion> Find(std::string_view token) const;

  // Of those that are mapped.
  int64_t bytes() const { return *in_use_; }

 private:
  const int64_t limit_;
  const std::shared_ptr<std::atomic<int64_t>> in_use_ = std::make_shared<std::atomic<int64_t>>(0);
  mutable core::Mutex mutex_;
  std::map<std::string, std::shared_ptr<const SharedRegion>, std::less<>> regions_
      ABSL_GUARDED_BY(mutex_);
};

// Sixteen bytes that nobody can guess. Ends the program if the system has none.
std::string RandomToken();

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SHARED_REGIONS_H_
