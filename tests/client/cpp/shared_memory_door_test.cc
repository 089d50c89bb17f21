#include "client/cpp/shared_memory_door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "tests/test_path.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

const std::string kServer = "0123456789abcdef";  // 16 bytes
constexpr char kServerInHex[] = "30313233343536373839616263646566";
constexpr char kTokenInHex[] = "ffeeddccbbaa99887766554433221100";
constexpr absl::Duration kPatience = absl::Minutes(1);

// Listens where the announcement says, and plays the server to the first who comes.
class SharedMemoryDoorTest : public testing::Test {
 protected:
  SharedMemoryDoorTest() {
    std::filesystem::remove(path_);
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::strcpy(address.sun_path, path_.c_str());
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
  }
  ~SharedMemoryDoorTest() override {
    if (server_.joinable()) server_.join();
    close(listener_);
    close(memory_);
    std::filesystem::remove(path_);
  }

  void Serve(std::function<void(int peer)> serve) {
    server_ = std::thread([this, serve = std::move(serve)] {
      const int peer = accept(listener_, nullptr, nullptr);
      serve(peer);
      close(peer);
    });
  }
  // Takes the greeting and the file, which it closes; then answers.
  void Answer(
      const std::string& answer, std::function<void()> then = [] {}) {
    Serve([=](int peer) {
      std::array<char, 64> buffer;
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
      iovec part = {.iov_base = buffer.data(), .iov_len = buffer.size()};
      msghdr message = {};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t bytes = recvmsg(peer, &message, 0);
      ASSERT_GT(bytes, 0);
      EXPECT_EQ(std::string(buffer.data(), static_cast<size_t>(bytes)),
                "fisherd shared memory 1\n");
      const cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      ASSERT_NE(rights, nullptr);
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
      char byte = 0;
      EXPECT_EQ(pread(fd, &byte, 1, 9), 1);
      EXPECT_EQ(byte, 'm');
      close(fd);
      send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
      then();
    });
  }
  absl::StatusOr<std::unique_ptr<SharedMemoryDoor>> Enter(absl::Duration timeout = kPatience) {
    EXPECT_EQ(pwrite(memory_, "m", 1, 9), 1);
    return SharedMemoryDoor::Enter(kServer + path_, memory_, timeout);
  }
  void ExpectClosed(const std::string& why) {
    const auto door = Enter();
    EXPECT_EQ(door.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(door.status().message()), HasSubstr(why));
  }

  const std::string path_ = TestPath();
  const int listener_ = socket(AF_UNIX, SOCK_STREAM, 0);
  const int memory_ = memfd_create("test", MFD_CLOEXEC);
  std::thread server_;
};

TEST_F(SharedMemoryDoorTest, HandsInTheMemoryAndIsGivenAToken) {
  std::atomic<bool> may_go = false;
  Answer(std::string("ok ") + kServerInHex + " " + kTokenInHex + "\n", [&] {
    while (!may_go) std::this_thread::yield();
  });
  const auto door = Enter();
  ASSERT_TRUE(door.ok()) << door.status();
  EXPECT_EQ((*door)->token(),
            "\xff\xee\xdd\xcc\xbb\xaa\x99\x88\x77\x66\x55\x44\x33\x22\x11" + std::string(1, '\0'));
  EXPECT_EQ((*door)->announcement(), kServer + path_);
  EXPECT_TRUE((*door)->stands());
  may_go = true;
  server_.join();
  EXPECT_FALSE((*door)->stands());
}

TEST_F(SharedMemoryDoorTest, AnotherServersDoorIsNotEntered) {
  Answer(std::string("ok ") + kTokenInHex + " " + kTokenInHex + "\n");
  ExpectClosed("another server's");
}

TEST_F(SharedMemoryDoorTest, PassesTheServersWordsOn) {
  Answer("error the memory is not sealed\n");
  ExpectClosed("the memory is not sealed");
}

TEST_F(SharedMemoryDoorTest, WhatIsNoAnswerIsAnError) {
  Answer("HTTP/1.1 400 Bad Request\r\n");
  ExpectClosed("HTTP/1.1 400");
}

TEST_F(SharedMemoryDoorTest, AnAnswerHasAnEnd) {
  Answer(std::string(5'000, 'x'));
  ExpectClosed("xxx");
}

TEST_F(SharedMemoryDoorTest, AnEndIsNoAnswer) {
  Answer("ok 30");
  ExpectClosed("cannot hear");
}

TEST_F(SharedMemoryDoorTest, ASilentServerIsNotWaitedFor) {
  std::atomic<bool> may_go = false;
  Serve([&](int) {
    while (!may_go) std::this_thread::yield();
  });
  EXPECT_TRUE(absl::IsUnavailable(Enter(absl::Milliseconds(20)).status()));
  may_go = true;
  server_.join();
}

TEST_F(SharedMemoryDoorTest, NobodyThereIsAnError) {
  for (const std::string& announcement :
       {std::string(), kServer, kServer.substr(1), kServer + path_ + ".not", kServer + "/dev/null",
        kServer + std::string(200, 'x')}) {
    const auto door = SharedMemoryDoor::Enter(announcement, memory_, kPatience);
    EXPECT_TRUE(absl::IsUnavailable(door.status())) << announcement;
  }
}

TEST(IsLocalPeerTest, ToldFromTheWorld) {
  for (const char* peer :
       {"unix:", "unix:/run/f", "ipv4:127.0.0.1:7600", "ipv6:[::1]:7600", "ipv6:%5B::1%5D:7600"}) {
    EXPECT_TRUE(IsLocalPeer(peer)) << peer;
  }
  for (const char* peer :
       {"", "ipv4:10.0.0.1:7600", "ipv6:[::2]:7600", "ipv4:128.0.0.1:127", "inproc", "unknown"}) {
    EXPECT_FALSE(IsLocalPeer(peer)) << peer;
  }
}

}  // namespace
}  // namespace fisherd
