#include "client/cpp/shared_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>

namespace fisherd {
namespace {

constexpr int64_t kPage = 4096;

class SharedMemoryTest : public testing::Test {
 protected:
  std::unique_ptr<SharedBlock> Take(int64_t bytes, int64_t step = 1) {
    return memory_->Take(bytes, {.tower = {"f", 0}, .incarnation = 7, .step = step});
  }
  void End(int64_t next) { memory_->OnEnded({"f", 0}, 7, next); }
  int64_t pages() const { return memory_->bytes_in_use() / kPage; }

  const std::shared_ptr<SharedMemory> memory_ = *SharedMemory::Create(10 * kPage - 1);
};

TEST_F(SharedMemoryTest, IsSealedAndOthersCanOnlyReadIt) {
  EXPECT_EQ(memory_->size(), 10 * kPage);
  const int seals = fcntl(memory_->fd(), F_GET_SEALS);
  EXPECT_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
            F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  const auto map = [&](int protection) {
    return mmap(nullptr, 10 * kPage, protection, MAP_SHARED, memory_->fd(), 0);
  };
  if ((seals & F_SEAL_FUTURE_WRITE) != 0) {
    EXPECT_EQ(map(PROT_READ | PROT_WRITE), MAP_FAILED);
  }
  const auto block = Take(5);
  std::memcpy(block->data(), "seen", 5);
  void* const view = map(PROT_READ);
  ASSERT_NE(view, MAP_FAILED);
  EXPECT_STREQ(static_cast<const char*>(view) + block->offset(), "seen");
  munmap(view, 10 * kPage);
}

TEST_F(SharedMemoryTest, GivesWholePagesTheFirstThatFit) {
  const auto first = Take(1);
  const auto second = Take(kPage + 1);
  EXPECT_EQ(first->offset(), 0);
  EXPECT_EQ(second->offset(), kPage);
  EXPECT_EQ(pages(), 3);
  EXPECT_EQ(Take(8 * kPage), nullptr);
  const auto rest = Take(7 * kPage);
  ASSERT_NE(rest, nullptr);
  EXPECT_EQ(pages(), 10);
  EXPECT_EQ(Take(1), nullptr);
}

TEST_F(SharedMemoryTest, WhatABatchHasLeftIsUsedAgainWhenItsStepHasEnded) {
  const int64_t offset = Take(10 * kPage, 3)->offset();
  EXPECT_EQ(pages(), 10) << "the server may read it still";
  EXPECT_EQ(Take(1), nullptr);
  End(3);
  EXPECT_EQ(Take(1), nullptr) << "step 3 has not ended";
  memory_->OnEnded({"f", 1}, 7, 9);
  memory_->OnEnded({"g", 0}, 7, 9);
  EXPECT_EQ(Take(1), nullptr) << "nor has it of these";
  End(4);
  EXPECT_EQ(pages(), 0);
  EXPECT_EQ(Take(1, 4)->offset(), offset);
}

TEST_F(SharedMemoryTest, WhatHasEndedBeforeIsFreeAtOnce) {
  End(5);
  { const auto block = Take(kPage, 4); }
  EXPECT_EQ(pages(), 0);
  { const auto block = Take(kPage, 5); }
  EXPECT_EQ(pages(), 1);
}

TEST_F(SharedMemoryTest, AnotherIncarnationEndsAllStepsOfTheOneBefore) {
  { const auto block = Take(kPage, 5); }
  EXPECT_EQ(pages(), 1);
  memory_->OnEnded({"f", 0}, 8, 1);
  EXPECT_EQ(pages(), 0);
}

TEST_F(SharedMemoryTest, ANewStreamEndsWhatTheOldOneWasSent) {
  { const auto block = Take(kPage, 5); }
  const auto kept = Take(kPage, 6);
  End(4);
  EXPECT_EQ(pages(), 2);
  memory_->OnNewStream();
  EXPECT_EQ(pages(), 1);
  // The new one may be of a server that knows less.
  { const auto block = Take(kPage, 3); }
  EXPECT_EQ(pages(), 2);
}

TEST_F(SharedMemoryTest, BlocksKeepTheMemory) {
  auto memory = *SharedMemory::Create(kPage);
  const auto block = memory->Take(kPage, {});
  memory = nullptr;
  std::memset(block->data(), 1, kPage);
}

TEST_F(SharedMemoryTest, FreePartsGrowTogether) {
  std::minstd_rand random(1);
  std::vector<std::unique_ptr<SharedBlock>> blocks;
  End(2);  // blocks of step 1 are free when they go
  for (int i = 0; i < 2'000; ++i) {
    if (auto block = Take(static_cast<int64_t>(random() % (4 * kPage)) + 1)) {
      std::memset(block->data(), static_cast<int>(i & 127), 1);
      blocks.push_back(std::move(block));
    } else {
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(random() % blocks.size()));
    }
  }
  blocks.clear();
  EXPECT_EQ(pages(), 0);
  EXPECT_NE(Take(10 * kPage), nullptr) << "it is one piece again";
}

TEST(SharedMemoryCreateTest, TooMuchIsAnError) {
  EXPECT_TRUE(absl::IsResourceExhausted(SharedMemory::Create(int64_t{1} << 62).status()));
}

}  // namespace
}  // namespace fisherd
