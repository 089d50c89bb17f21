#include "server/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

class UnixSocketTest : public testing::Test {
 protected:
  UnixSocketTest() { std::filesystem::remove(path_); }
  ~UnixSocketTest() override { std::filesystem::remove(path_); }

  // Someone listens until the result is closed; the file stays.
  int Listen() {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::strcpy(address.sun_path, path_.c_str());
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd, 1), 0);
    return fd;
  }

  const std::string path_ = TestPath();
};

TEST_F(UnixSocketTest, PathsAreToldFromHosts) {
  EXPECT_EQ(SocketPath("unix:/run/f.sock"), "/run/f.sock");
  EXPECT_EQ(SocketPath("unix:///run/f.sock"), "/run/f.sock");
  EXPECT_EQ(SocketPath("unix:f.sock"), "f.sock");
  EXPECT_EQ(SocketPath("127.0.0.1:7600"), std::nullopt);
  EXPECT_EQ(SocketPath("unix-abstract:f"), std::nullopt);
}

TEST_F(UnixSocketTest, OnlyALiveSocketIsTaken) {
  EXPECT_TRUE(CheckSocketIsFree(path_).ok());
  const int fd = Listen();
  const absl::Status taken = CheckSocketIsFree(path_);
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("unix:" + path_ + ": the address is taken"));
  close(fd);
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(CheckSocketIsFree(path_).ok());
}

TEST_F(UnixSocketTest, AnotherFileIsNotReplaced) {
  std::ofstream(path_) << "precious";
  EXPECT_THAT(std::string(CheckSocketIsFree(path_).message()), HasSubstr("is not a socket"));
}

TEST_F(UnixSocketTest, OwnerAndGroupMayConnect) {
  close(Listen());
  ASSERT_TRUE(SetSocketMode(path_).ok());
  struct stat file;
  ASSERT_EQ(lstat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0660);
  EXPECT_THAT(std::string(SetSocketMode(path_ + "/nowhere").message()), HasSubstr("/nowhere: "));
}

}  // namespace
}  // namespace fisherd::server
