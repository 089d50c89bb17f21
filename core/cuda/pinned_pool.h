// Host memory that cards read directly. The driver takes long to give it and to take it back, so it
// is kept.

#ifndef FISHERD_CORE_CUDA_PINNED_POOL_H_
#define FISHERD_CORE_CUDA_PINNED_POOL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace fisherd::cuda {

// Thread-safe.
class PinnedPool {
 public:
  // Keeps up to `keep` bytes that nobody uses.
  explicit PinnedPool(int64_t keep) : keep_(keep) {}
  ~PinnedPool();

  // Aligned to a page; null if there is none.
  void* Allocate(size_t bytes);
  void Free(void* memory, size_t bytes);

  // All that is pinned now.
  int64_t bytes() const;

 private:
  const int64_t keep_;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> kept_;  // by size
  int64_t kept_bytes_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_PINNED_POOL_H_
