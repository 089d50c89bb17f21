// What goes right is shown by the demo itself (the test demo_quick).

#include "client/trainer/tower.h"

#include <sys/socket.h>

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::trainer {
namespace {

using ::testing::HasSubstr;

Options SomeOptions() {
  int sockets[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  return {.command = "train", .server = "127.0.0.1:1", .link = sockets[0]};
}

TEST(TowerTest, NeedsTheData) {
  Options options = SomeOptions();
  options.data = "/nonexistent.csv.gz";
  EXPECT_EQ(RunTower(options).code(), absl::StatusCode::kNotFound);
}

TEST(TowerTest, NeedsEnoughData) {
  Options options = SomeOptions();
  options.data = TestPath();
  std::ofstream file(options.data);
  for (int i = 0; i < 64; ++i) file << "0,";
  file << "0\n";
  file.close();
  absl::Status status = RunTower(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has 1 examples; more than 1408 are needed"));
}

}  // namespace
}  // namespace fisherd::trainer
