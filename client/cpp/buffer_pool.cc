#include "client/cpp/buffer_pool.h"

#include <algorithm>
#include <utility>

namespace fisherd {
namespace {

// The allocator has smaller ones at hand itself.
constexpr int64_t kSmallest = 16 << 10;

}  // namespace

std::string BufferPool::Take(int64_t bytes) {
  std::string buffer;
  if (bytes >= kSmallest) {
    MutexLock lock(&mutex_);
    // The newest is the likeliest to be in a cache; one that is much too large would be wasted.
    const auto fits = [&](const std::string& candidate) {
      const int64_t capacity = candidate.capacity();
      return capacity >= bytes && capacity / 2 <= bytes;
    };
    const auto found = std::find_if(buffers_.rbegin(), buffers_.rend(), fits);
    if (found != buffers_.rend()) {
      buffer = std::move(*found);
      bytes_ -= buffer.capacity();
      buffers_.erase(std::next(found).base());
    }
  }
  buffer.clear();
  buffer.reserve(bytes);
  return buffer;
}

void BufferPool::Return(std::string buffer) {
  const int64_t capacity = buffer.capacity();
  if (capacity < kSmallest || capacity > bound_) return;
  std::vector<std::string> freed;  // outside of the lock
  MutexLock lock(&mutex_);
  buffers_.push_back(std::move(buffer));
  bytes_ += capacity;
  while (bytes_ > bound_) {  // the oldest go: nobody asks for their size any more
    bytes_ -= buffers_.front().capacity();
    freed.push_back(std::move(buffers_.front()));
    buffers_.erase(buffers_.begin());
  }
}

int64_t BufferPool::bytes() const {
  MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace fisherd
