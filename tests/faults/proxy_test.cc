#include "tests/faults/proxy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace fisherd::faults {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A connection through a proxy, and both of its ends.
class ProxyTest : public testing::Test {
 protected:
  ~ProxyTest() override {
    for (const int fd : {client_, server_, listener_}) close(fd);
  }

  int Listen() {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }

  void Connect(const Proxy& proxy) {
    client_ = ConnectOnly(proxy);
    server_ = accept(listener_, nullptr, nullptr);
    ASSERT_GE(server_, 0);
  }

  static int ConnectOnly(const Proxy& proxy) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(proxy.port());
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  static void Say(int fd, const std::string& text) {
    EXPECT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), std::ssize(text));
  }
  // `size` bytes, or what came before the end.
  static std::string Hear(int fd, size_t size) {
    std::string text(size, '\0');
    size_t heard = 0;
    while (heard < size) {
      const ssize_t more = recv(fd, text.data() + heard, size - heard, 0);
      if (more <= 0) break;
      heard += static_cast<size_t>(more);
    }
    return text.substr(0, heard);
  }

  int listener_ = -1;
  int client_ = -1;
  int server_ = -1;
};

TEST_F(ProxyTest, PassesBytesBothWays) {
  Proxy proxy(Listen());
  Connect(proxy);
  Say(client_, "hello");
  EXPECT_EQ(Hear(server_, 5), "hello");
  Say(server_, "good day");
  EXPECT_EQ(Hear(client_, 8), "good day");
  EXPECT_EQ(proxy.passed(kUp), 5);
  EXPECT_EQ(proxy.passed(kDown), 8);
  EXPECT_EQ(proxy.cuts(), 0);
}

TEST_F(ProxyTest, TellsEitherSideThatTheOtherHasGone) {
  Proxy proxy(Listen());
  Connect(proxy);
  Say(client_, "last");
  shutdown(client_, SHUT_WR);
  EXPECT_EQ(Hear(server_, 5), "last");
  EXPECT_EQ(Hear(client_, 1), "");
  EXPECT_EQ(proxy.cuts(), 0);
}

TEST_F(ProxyTest, CutsAfterSoManyBytesOfOneDirection) {
  Proxy proxy(Listen(), [](int connection, int) {
    return connection == 0 ? Proxy::Fate{.cut_after = {3, Proxy::kNever}} : Proxy::Fate{};
  });
  Connect(proxy);
  Say(server_, "any number of bytes");
  EXPECT_EQ(Hear(client_, 19).size(), 19);
  Say(client_, "hello");
  EXPECT_EQ(Hear(server_, 5), "hel");
  EXPECT_EQ(Hear(client_, 1), "");
  EXPECT_EQ(proxy.cuts(), 1);
  close(client_);
  close(server_);
  Connect(proxy);
  Say(client_, "hello");
  EXPECT_EQ(Hear(server_, 5), "hello");
}

TEST_F(ProxyTest, CutsWhatThereIsAndLeadsNowhere) {
  Proxy proxy(Listen());
  Connect(proxy);
  proxy.SetTarget(0);
  proxy.CutAll();
  EXPECT_EQ(Hear(server_, 1), "");
  EXPECT_EQ(Hear(client_, 1), "");
  EXPECT_EQ(proxy.cuts(), 1);
  const int refused = ConnectOnly(proxy);
  EXPECT_EQ(Hear(refused, 1), "");
  close(refused);
}

TEST_F(ProxyTest, StallsAfterSoManyBytesUntilResumed) {
  Proxy proxy(Listen());
  Connect(proxy);
  proxy.Stall(kUp, 2);
  Say(client_, "hello");
  EXPECT_EQ(Hear(server_, 2), "he");
  proxy.AwaitStalled(kUp);
  Say(server_, "down");
  EXPECT_EQ(Hear(client_, 4), "down");
  EXPECT_EQ(proxy.passed(kUp), 2);
  proxy.Resume();
  EXPECT_EQ(Hear(server_, 3), "llo");
}

TEST_F(ProxyTest, DelaysOneConnectionAndNotAnother) {
  Proxy proxy(Listen(), [](int connection, int) {
    return Proxy::Fate{.delay = connection == 0 ? absl::Hours(1) : absl::Milliseconds(5)};
  });
  Connect(proxy);
  const int slow_client = client_;
  const int slow_server = server_;
  Say(slow_client, "slow");
  Connect(proxy);
  Say(client_, "hello");
  EXPECT_EQ(Hear(server_, 5), "hello");
  EXPECT_EQ(proxy.passed(kUp), 5);
  close(slow_client);
  close(slow_server);
}

}  // namespace
}  // namespace fisherd::faults
