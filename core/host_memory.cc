#include "core/host_memory.h"

#include <sys/mman.h>

#include <cstdlib>

namespace fisherd::core {
namespace {

// A state of a few pages' worth of huge pages is walked row by row: with small ones, a page a row.
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kLarge = 2 * kHugePage;

}  // namespace

void HostFree::operator()(void* memory) const {
  if (source != nullptr) {
    source->Free(memory, bytes);
  } else {
    std::free(memory);
  }
}

void* AllocateAligned(size_t bytes) {
  // 0 bytes could be answered with null.
  const size_t whole = bytes + 1;
  void* memory = nullptr;
  if (whole == 0) return nullptr;
  if (posix_memalign(&memory, bytes < kLarge ? kAlignment : kHugePage, whole) != 0) return nullptr;
  // A hint: where there are no huge pages, small ones do.
  if (bytes >= kLarge) madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

}  // namespace fisherd::core
