// What the kernels need of Highway's library, for a program of one target.

#include <cstdlib>

#include "hwy/aligned_allocator.h"
#include "hwy/targets.h"

namespace hwy {

int64_t SupportedTargets() { return HWY_STATIC_TARGET; }
void SetSupportedTargetsForTest(int64_t) {}

void* AllocateAlignedBytes(size_t bytes, AllocPtr, void*) {
  return std::aligned_alloc(HWY_ALIGNMENT, (bytes / HWY_ALIGNMENT + 1) * HWY_ALIGNMENT);
}

void FreeAlignedBytes(const void* memory, FreePtr, void*) { std::free(const_cast<void*>(memory)); }

void AlignedDeleter::DeleteAlignedArray(void* memory, FreePtr, void*, ArrayDeleter) {
  std::free(memory);
}

}  // namespace hwy
