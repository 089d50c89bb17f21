#include "core/kernels/target.h"

#include <gmock/gmock.h>

#include "tests/core/kernels/targets.h"

namespace fisherd::kernels {
namespace {

using ::testing::Contains;

TEST(TargetsTest, TheBestIsTheFirst) {
  const std::vector<std::string> available = AvailableTargets();
  ASSERT_FALSE(available.empty());
  EXPECT_EQ(CurrentTarget(), available.front());
#if defined(__x86_64__)
  EXPECT_THAT(available, Contains("scalar"));
  EXPECT_EQ(__builtin_cpu_supports("avx2") != 0,
            std::ranges::find(available, "avx2") != available.end());
#endif
}

TEST(TargetsTest, WhatIsNotThereCannotBeForced) {
  const std::string before = CurrentTarget();
  for (const char* name : {"", "emu128", "AVX2", "avx2 ", "best"}) {
    EXPECT_FALSE(ForceTarget(name)) << name;
    EXPECT_EQ(CurrentTarget(), before);
  }
}

TEST(TargetsTest, ForcedOnesDoNotHideTheOthers) {
  const std::vector<std::string> available = AvailableTargets();
  ASSERT_TRUE(ForceTarget(available.back()));
  EXPECT_EQ(CurrentTarget(), available.back());
  EXPECT_EQ(AvailableTargets(), available);
  ChooseBestTarget();
  EXPECT_EQ(CurrentTarget(), available.front());
}

class EveryTargetTest : public TargetTest {};

TEST_P(EveryTargetTest, KnowsWhetherItFuses) {
  EXPECT_EQ(TargetHasFma(), GetParam() != "scalar" && GetParam() != "sse4");
}

FISHERD_FOR_EVERY_TARGET(EveryTargetTest);

}  // namespace
}  // namespace fisherd::kernels
