#include "server/machine_memory.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

class MachineMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = TestPath();
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal:       4096 kB\nMemFree:        1024 kB\n");
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file(root_ + path);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::string root_;
};

TEST_F(MachineMemoryTest, IsTheMachinesWithoutControlGroups) {
  EXPECT_EQ(MachineMemory(root_), 4096 * 1024);
}

TEST_F(MachineMemoryTest, IsTheLowestLimitOfTheGroupsAbove) {
  Write("/proc/self/cgroup", "0::/a.slice/b.service\n");
  Write("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
  Write("/sys/fs/cgroup/a.slice/memory.max", "1000000\n");
  EXPECT_EQ(MachineMemory(root_), 1000000);
  Write("/sys/fs/cgroup/a.slice/b.service/memory.max", "999\n");
  EXPECT_EQ(MachineMemory(root_), 999);
}

TEST_F(MachineMemoryTest, IsTheContainersOwnLimit) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "2048\n");
  EXPECT_EQ(MachineMemory(root_), 2048);
}

TEST_F(MachineMemoryTest, ALimitAboveTheMachineIsNone) {
  Write("/sys/fs/cgroup/memory.max", "999999999999\n");
  EXPECT_EQ(MachineMemory(root_), 4096 * 1024);
}

TEST(MachineMemoryHereTest, KnowsThisMachine) { EXPECT_GT(MachineMemory(), 0); }

}  // namespace
}  // namespace fisherd::server
