// Tests that run once for every target that this processor has.

#ifndef FISHERD_TESTS_CORE_KERNELS_TARGETS_H_
#define FISHERD_TESTS_CORE_KERNELS_TARGETS_H_

#include <gtest/gtest.h>

#include <string>

#include "core/kernels/target.h"

namespace fisherd::kernels {

// Forces the target that is its parameter, and asserts that it is the one.
class TargetTest : public ::testing::TestWithParam<std::string> {
 protected:
  TargetTest() {
    EXPECT_TRUE(ForceTarget(GetParam()));
    EXPECT_EQ(CurrentTarget(), GetParam());
  }
  ~TargetTest() override { ChooseBestTarget(); }
};

#define FISHERD_FOR_EVERY_TARGET(test)                                             \
  INSTANTIATE_TEST_SUITE_P(Targets, test, ::testing::ValuesIn(AvailableTargets()), \
                           [](const auto& info) { return info.param; })

}  // namespace fisherd::kernels

#endif  // FISHERD_TESTS_CORE_KERNELS_TARGETS_H_
