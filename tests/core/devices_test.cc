#include "core/devices.h"

#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

TEST(DevicesTest, ThereAreSomeOrAReason) {
  const Devices devices = FindDevices({});
  if (devices.found.empty()) {
    EXPECT_NE(devices.why_none, "");
    return;
  }
  const DeviceBackend& device = *devices.found[0];
  EXPECT_EQ(device.device(), "cuda:0");
  EXPECT_TRUE(device.name().starts_with("cuda:0 (")) << device.name();
  EXPECT_GT(device.stats().memory_bytes, device.state_budget());
}

}  // namespace
}  // namespace fisherd::core
