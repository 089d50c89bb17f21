// Memory of messages, used again: what a stream keeps comes and goes at the rate of its batches,
// and memory fresh from the system costs as much as the copy into it.

#ifndef FISHERD_CLIENT_BUFFER_POOL_H_
#define FISHERD_CLIENT_BUFFER_POOL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cpp/mutex.h"

namespace fisherd {

// Thread-safe.
class BufferPool {
 public:
  // Keeps up to `bound` bytes that nobody uses.
  explicit BufferPool(int64_t bound) : bound_(bound) {}

  // An empty string with a capacity of at least `bytes`.
  std::string Take(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Return(std::string buffer) ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const int64_t bound_;
  mutable Mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // the capacities of what follows
  std::vector<std::string> buffers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_BUFFER_POOL_H_
