// What goes right is shown by the demo itself (the test demo_quick).

#include "client/trainer/demo.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::trainer {
namespace {

using ::testing::HasSubstr;

TEST(DemoTest, AServerThatDoesNotStart) {
  const std::string out = TestPath() + "/out";
  for (const std::string program : {"false", "/nonexistent/fisherd"}) {
    absl::Status status = RunDemo({.command = "demo", .fisherd = program, .out = out});
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr(program + " (process "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("exited with code "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("see " + out + "/fisherd.log"));
  }
}

TEST(DemoTest, AFolderThatCannotBe) {
  const std::string file = TestPath();
  std::ofstream{file} << "a file";
  absl::Status status = RunDemo({.command = "demo", .fisherd = "false", .out = file + "/out"});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(file));
}

}  // namespace
}  // namespace fisherd::trainer
