#include "server/process_stats.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "absl/time/clock.h"

namespace fisherd::server {
namespace {

TEST(ProcessStatsTest, SeesWhatThisProcessDoes) {
  const ProcessStats before = GetProcessStats();
  EXPECT_GE(before.threads, 1);
  EXPECT_GT(before.max_files, before.open_files);
  EXPECT_GT(before.virtual_bytes, before.resident_bytes);
  EXPECT_NEAR(before.start_time, absl::ToUnixMillis(absl::Now()) / 1e3, 3600);
  const int file = open("/dev/null", O_RDONLY);
  std::vector<char> memory(64 << 20, 1);
  const absl::Time end = absl::Now() + absl::Milliseconds(50);
  while (absl::Now() < end) memory[0] ^= 1;
  const ProcessStats after = GetProcessStats();
  EXPECT_EQ(after.open_files, before.open_files + 1);
  EXPECT_GT(after.resident_bytes, before.resident_bytes + (60 << 20));
  EXPECT_GT(after.cpu_seconds, before.cpu_seconds);
  close(file);
}

}  // namespace
}  // namespace fisherd::server
