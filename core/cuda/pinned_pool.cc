#include "core/cuda/pinned_pool.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>

namespace fisherd::cuda {
namespace {

// Few sizes, so that they meet again; a fourth is lost at most.
size_t SizeClass(size_t bytes) {
  bytes = std::max<size_t>(bytes, 4096);
  const size_t step = std::bit_floor(bytes) / 4;
  return (bytes + step - 1) / step * step;
}

}  // namespace

PinnedPool::~PinnedPool() {
  for (const auto& [size, all] : kept_) {
    for (void* memory : all) cudaFreeHost(memory);
  }
}

void* PinnedPool::Allocate(size_t bytes) {
  const size_t size = SizeClass(bytes);
  {
    std::lock_guard lock(mutex_);
    if (const auto kept = kept_.find(size); kept != kept_.end()) {
      void* const memory = kept->second.back();
      kept->second.pop_back();
      if (kept->second.empty()) kept_.erase(kept);
      kept_bytes_ -= static_cast<int64_t>(size);
      return memory;
    }
  }
  void* memory = nullptr;
  if (cudaHostAlloc(&memory, size, cudaHostAllocPortable) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  std::lock_guard lock(mutex_);
  bytes_ += static_cast<int64_t>(size);
  return memory;
}

void PinnedPool::Free(void* memory, size_t bytes) {
  if (memory == nullptr) return;
  const size_t size = SizeClass(bytes);
  {
    std::lock_guard lock(mutex_);
    if (kept_bytes_ + static_cast<int64_t>(size) <= keep_) {
      kept_[size].push_back(memory);
      kept_bytes_ += static_cast<int64_t>(size);
      return;
    }
    bytes_ -= static_cast<int64_t>(size);
  }
  cudaFreeHost(memory);
}

int64_t PinnedPool::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace fisherd::cuda
