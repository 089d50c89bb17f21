#include "client/cpp/buffer_pool.h"

#include <gtest/gtest.h>

namespace fisherd {
namespace {

constexpr int64_t kBytes = 64 << 10;

TEST(BufferPoolTest, GivesWhatWasReturned) {
  BufferPool pool(4 * kBytes);
  std::string buffer = pool.Take(kBytes);
  EXPECT_GE(static_cast<int64_t>(buffer.capacity()), kBytes);
  buffer = "left over";
  buffer.reserve(kBytes);
  const char* memory = buffer.data();
  pool.Return(std::move(buffer));
  EXPECT_GE(pool.bytes(), kBytes);
  const std::string again = pool.Take(kBytes - 100);
  EXPECT_EQ(again.data(), memory);
  EXPECT_TRUE(again.empty());
  EXPECT_EQ(pool.bytes(), 0);
}

TEST(BufferPoolTest, DoesNotWasteLargeOnesOnSmallNeeds) {
  BufferPool pool(16 * kBytes);
  pool.Return(pool.Take(8 * kBytes));
  EXPECT_LT(static_cast<int64_t>(pool.Take(kBytes).capacity()), 2 * kBytes + 1);
  EXPECT_GE(pool.bytes(), 8 * kBytes);
  EXPECT_GE(static_cast<int64_t>(pool.Take(9 * kBytes).capacity()), 9 * kBytes);
}

TEST(BufferPoolTest, KeepsNoMoreThanItsBoundTheNewest) {
  BufferPool pool(3 * kBytes);
  std::string first = pool.Take(kBytes + 1), second = pool.Take(kBytes + 2),
              third = pool.Take(kBytes + 3);
  const char* last = third.data();
  pool.Return(std::move(first));
  pool.Return(std::move(second));
  pool.Return(std::move(third));
  EXPECT_LE(pool.bytes(), 3 * kBytes);
  EXPECT_EQ(pool.Take(kBytes).data(), last);
  pool.Return(std::string(4 * kBytes, 'x'));
  EXPECT_LE(pool.bytes(), 3 * kBytes);
  pool.Return(std::string("small"));
  EXPECT_LE(pool.bytes(), 3 * kBytes);
}

}  // namespace
}  // namespace fisherd
