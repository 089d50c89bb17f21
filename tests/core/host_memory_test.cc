#include "core/host_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

namespace fisherd::core {
namespace {

class CountingMemory : public HostMemory {
 public:
  void* Allocate(size_t bytes) override {
    taken += bytes;
    return bytes > 1000 ? nullptr : std::aligned_alloc(kAlignment, 1024);
  }
  void Free(void* memory, size_t bytes) override {
    given_back += bytes;
    std::free(memory);
  }
  size_t taken = 0;
  size_t given_back = 0;
};

TEST(HostMemoryTest, ArraysGoBackToWhereTheyAreFrom) {
  CountingMemory memory;
  {
    const auto array = MakeAlignedArray<double>(100, &memory);
    ASSERT_NE(array, nullptr);
    EXPECT_EQ(memory.taken, 800);
    const auto moved_from = MakeAlignedArray<float>(10);
    EXPECT_EQ(memory.taken, 800);  // that was the heap's
    EXPECT_EQ(memory.given_back, 0);
  }
  EXPECT_EQ(memory.given_back, 800);
  EXPECT_EQ(MakeAlignedArray<double>(126, &memory), nullptr);
  EXPECT_EQ(memory.given_back, 800);
}

TEST(HostMemoryTest, TheHeapsAreAligned) {
  for (const size_t count : {0, 1, 100, 5 << 20}) {
    const auto array = MakeAlignedArray<std::byte>(count);
    ASSERT_NE(array, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(array.get()) % kAlignment, 0);
  }
}

}  // namespace
}  // namespace fisherd::core
