// Host memory: aligned arrays, from the heap or from where a backend's device reads them fast.

#ifndef FISHERD_CORE_HOST_MEMORY_H_
#define FISHERD_CORE_HOST_MEMORY_H_

#include <cstddef>
#include <memory>

namespace fisherd::core {

inline constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

// A source of host memory other than the heap. Thread-safe; outlives what it has given.
class HostMemory {
 public:
  virtual ~HostMemory() = default;
  // At least `bytes`, aligned to kAlignment, not initialised; null if there is no memory.
  virtual void* Allocate(size_t bytes) = 0;
  // What Allocate has given for as many bytes.
  virtual void Free(void* memory, size_t bytes) = 0;
};

// Gives memory back to where it is from.
struct HostFree {
  HostMemory* source = nullptr;  // null: the heap
  size_t bytes = 0;
  void operator()(void* memory) const;
};

// From the heap, where large ones lie in huge pages; null if there is no memory.
void* AllocateAligned(size_t bytes);

// `count` elements, aligned to kAlignment, not initialised; null if there is no memory.
template <typename T>
using AlignedArray = std::unique_ptr<T[], HostFree>;
template <typename T>
AlignedArray<T> MakeAlignedArray(size_t count, HostMemory* source = nullptr) {
  const size_t bytes = count * sizeof(T);
  void* const memory = source != nullptr ? source->Allocate(bytes) : AllocateAligned(bytes);
  return AlignedArray<T>(static_cast<T*>(memory), HostFree{source, bytes});
}

}  // namespace fisherd::core

#endif  // FISHERD_CORE_HOST_MEMORY_H_
