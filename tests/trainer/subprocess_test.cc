#include "client/trainer/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::trainer {
namespace {

using ::testing::HasSubstr;

TEST(SubprocessTest, WaitTellsHowItEnded) {
  absl::StatusOr<Subprocess> good = Subprocess::Start({"true"}, {});
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(good->Wait().ok());
  absl::StatusOr<Subprocess> bad = Subprocess::Start({"sh", "-c", "exit 3"}, {});
  absl::Status status = bad->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("exited with code 3"));
  absl::StatusOr<Subprocess> absent = Subprocess::Start({"/nonexistent/program"}, {});
  EXPECT_THAT(std::string(absent->Wait().message()), HasSubstr("exited with code 127"));
}

TEST(SubprocessTest, StopEndsIt) {
  absl::StatusOr<Subprocess> process = Subprocess::Start({"sleep", "1000"}, {});
  ASSERT_TRUE(process.ok());
  const pid_t pid = process->pid();
  EXPECT_FALSE(process->HasEnded());
  process->Stop();
  EXPECT_EQ(kill(pid, 0), -1);
  process->Stop();  // harmless
}

TEST(SubprocessTest, ItsOwnerTakesItAlong) {
  pid_t pid;
  {
    absl::StatusOr<Subprocess> process = Subprocess::Start({"sleep", "1000"}, {});
    const Subprocess moved = *std::move(process);
    pid = moved.pid();
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(SubprocessTest, LogAndInheritedDescriptor) {
  const std::string log = TestPath();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const std::string command =
      "echo said; echo complained >&2; echo passed >&" + std::to_string(ends[1]);
  absl::StatusOr<Subprocess> process =
      Subprocess::Start({"bash", "-c", command}, {.inherited = ends[1], .log = log});
  ASSERT_TRUE(process.ok());
  EXPECT_TRUE(process->Wait().ok());
  close(ends[1]);
  char buffer[16];
  EXPECT_EQ(std::string(buffer, read(ends[0], buffer, sizeof(buffer))), "passed\n");
  close(ends[0]);
  std::ifstream file(log);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "said\ncomplained\n");
}

}  // namespace
}  // namespace fisherd::trainer
