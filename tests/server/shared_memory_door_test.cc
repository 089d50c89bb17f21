#include "server/shared_memory_door.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/memory_file.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kGreeting = "fisherd shared memory 1\n";

// A client of the door.
class Peer {
 public:
  explicit Peer(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::strcpy(address.sun_path, path.c_str());
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~Peer() { close(fd_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  bool connected() const { return connected_; }

  void Say(std::string_view words, const std::vector<int>& fds = {}) {
    std::string bytes(words);
    iovec part = {.iov_base = bytes.data(), .iov_len = bytes.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(100 * sizeof(int))> control = {};
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    EXPECT_EQ(sendmsg(fd_, &message, MSG_NOSIGNAL), std::ssize(words));
  }

  // A line, or what came before the end.
  std::string Hear() {
    std::string line;
    char byte = 0;
    while (byte != '\n' && recv(fd_, &byte, 1, 0) == 1) line += byte;
    return line;
  }
  bool HearsTheEnd() {
    char byte;
    return recv(fd_, &byte, 1, 0) <= 0;
  }

 private:
  const int fd_;
  bool connected_ = false;
};

class SharedMemoryDoorTest : public testing::Test {
 protected:
  SharedMemoryDoorTest() { std::filesystem::remove(options_.path); }
  ~SharedMemoryDoorTest() override {
    door_ = nullptr;
    EXPECT_FALSE(std::filesystem::exists(options_.path));
  }

  void Open() {
    auto door = SharedMemoryDoor::Open(options_);
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
  }
  // The token that the door has answered, after it has told whose it is.
  std::string TokenOf(const std::string& answer) {
    const std::vector<std::string> words = absl::StrSplit(answer.substr(0, answer.size() - 1), ' ');
    EXPECT_EQ(words.size(), 3) << answer;
    if (words.size() != 3) return "";
    EXPECT_EQ(words[0], "ok");
    EXPECT_EQ(absl::HexStringToBytes(words[1]), door_->announcement().substr(0, 16));
    return absl::HexStringToBytes(words[2]);
  }
  void ExpectTurnedAway(Peer& peer, const std::string& why) {
    const std::string answer = peer.Hear();
    EXPECT_THAT(answer, StartsWith("error "));
    EXPECT_THAT(answer, HasSubstr(why));
    EXPECT_TRUE(peer.HearsTheEnd());
  }
  void AwaitBytes(int64_t bytes) {
    while (door_->regions().bytes() != bytes)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  SharedMemoryDoor::Options options_ = {
      .path = TestPath(), .limit = 1 << 20, .handshake_timeout = absl::Minutes(10)};
  std::unique_ptr<SharedMemoryDoor> door_;
};

int OpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<int>(std::distance(begin(files), end(files)));
}

TEST_F(SharedMemoryDoorTest, ARegionIsSharedAsLongAsTheConnectionStands) {
  Open();
  MemoryFile file(4'096);
  file.Write(100, "hello");
  {
    Peer peer(options_.path);
    peer.Say(kGreeting, {file.fd()});
    const std::string token = TokenOf(peer.Hear());
    const auto region = door_->regions().Find(token);
    ASSERT_NE(region, nullptr);
    EXPECT_EQ(region->bytes(100, 5), "hello");
  }
  AwaitBytes(0);
}

TEST_F(SharedMemoryDoorTest, AnnouncesItsAbsolutePathAndLetsTheGroupIn) {
  Open();
  EXPECT_EQ(door_->announcement().substr(16), options_.path);
  struct stat file;
  ASSERT_EQ(lstat(options_.path.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0660);
  const std::string before = door_->announcement();
  EXPECT_THAT(std::string(SharedMemoryDoor::Open(options_).status().message()),
              HasSubstr("the address is taken"));
  door_ = nullptr;
  Open();
  EXPECT_NE(door_->announcement(), before) << "another server";
}

TEST_F(SharedMemoryDoorTest, ReplacesTheSocketOfADeadServerAndNothingElse) {
  {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::strcpy(address.sun_path, options_.path.c_str());
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    close(fd);
  }
  Open();
  EXPECT_TRUE(Peer(options_.path).connected());
  SharedMemoryDoor::Options bad = options_;
  bad.path = testing::TempDir();
  EXPECT_THAT(std::string(SharedMemoryDoor::Open(bad).status().message()),
              HasSubstr("is not a socket"));
  bad.path = testing::TempDir() + "no such folder/door";
  EXPECT_TRUE(absl::IsUnavailable(SharedMemoryDoor::Open(bad).status()));
}

TEST_F(SharedMemoryDoorTest, TakesTheGreetingInPieces) {
  Open();
  MemoryFile file(4'096);
  Peer peer(options_.path);
  peer.Say(kGreeting.substr(0, 3));
  peer.Say(kGreeting.substr(3, 4), {file.fd()});
  peer.Say(kGreeting.substr(7));
  EXPECT_NE(TokenOf(peer.Hear()), "");
}

TEST_F(SharedMemoryDoorTest, TellsWhatIsWrong) {
  Open();
  const int files = OpenFiles();
  {
    MemoryFile good(4'096), unsealed(4'096, 0), empty(0), large(2 << 20);
    struct Case {
      std::string_view words;
      std::vector<int> fds;
      std::string why;
    };
    const Case cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", {}, "expected 'fisherd shared memory 1'"},
        {"fisherd shared memory 2\n", {good.fd()}, "expected 'fisherd shared memory 1'"},
        {"fisherd shared memory 1\nmore", {good.fd()}, "expected 'fisherd shared memory 1'"},
        {std::string_view("\0\xff", 2), {good.fd()}, "expected"},
        {kGreeting, {}, "expected one file descriptor"},
        {kGreeting, {good.fd(), good.fd()}, "expected one file descriptor"},
        {kGreeting, std::vector<int>(100, good.fd()), "expected one file descriptor"},
        {kGreeting, {unsealed.fd()}, "not sealed"},
        {kGreeting, {empty.fd()}, "empty"},
        {kGreeting, {large.fd()}, "is 2097152 bytes; the server takes 1048576"},
        {kGreeting, {STDERR_FILENO}, "not one of memfd_create"}};
    for (const Case& c : cases) {
      Peer peer(options_.path);
      peer.Say(c.words, c.fds);
      ExpectTurnedAway(peer, c.why);
    }
  }
  EXPECT_EQ(door_->regions().bytes(), 0);
  EXPECT_EQ(OpenFiles(), files) << "it keeps nobody's files";
}

TEST_F(SharedMemoryDoorTest, ASecondFileOrWordAfterTheAnswerEndsTheRegion) {
  Open();
  MemoryFile file(4'096);
  for (const bool with_file : {false, true}) {
    Peer peer(options_.path);
    peer.Say(kGreeting, {file.fd()});
    const std::string token = TokenOf(peer.Hear());
    peer.Say("x", with_file ? std::vector<int>{file.fd()} : std::vector<int>{});
    EXPECT_TRUE(peer.HearsTheEnd());
    AwaitBytes(0);
    EXPECT_EQ(door_->regions().Find(token), nullptr);
  }
}

TEST_F(SharedMemoryDoorTest, WhoSaysNothingIsShownOutAndKeepsNobodyWaiting) {
  options_.handshake_timeout = absl::Milliseconds(200);
  Open();
  MemoryFile file(4'096);
  Peer silent(options_.path), slow(options_.path), good(options_.path);
  slow.Say(kGreeting.substr(0, 5), {file.fd()});
  good.Say(kGreeting, {file.fd()});
  EXPECT_NE(TokenOf(good.Hear()), "");
  EXPECT_TRUE(silent.HearsTheEnd());
  EXPECT_TRUE(slow.HearsTheEnd());
  EXPECT_EQ(door_->regions().bytes(), 4'096) << "who has handed in memory may be silent";
}

TEST_F(SharedMemoryDoorTest, ThereIsAMaximumOfConnections) {
  options_.max_connections = 2;
  Open();
  MemoryFile file(4'096);
  auto silent = std::make_unique<Peer>(options_.path);
  Peer good(options_.path);
  good.Say(kGreeting, {file.fd()});
  EXPECT_NE(TokenOf(good.Hear()), "");
  for (int i = 0; i < 20; ++i) {
    Peer third(options_.path);
    ExpectTurnedAway(third, "has 2 clients");
  }
  silent = nullptr;
  for (std::string answer; !answer.starts_with("ok ");) {
    Peer next(options_.path);
    next.Say(kGreeting, {file.fd()});
    answer = next.Hear();
  }
}

TEST_F(SharedMemoryDoorTest, ClosesWithPeersInAnyState) {
  Open();
  MemoryFile file(4'096);
  Peer silent(options_.path), slow(options_.path), good(options_.path), rude(options_.path);
  slow.Say("f", {file.fd()});
  good.Say(kGreeting, {file.fd()});
  EXPECT_NE(TokenOf(good.Hear()), "");
  rude.Say("rude");
  door_ = nullptr;
  EXPECT_TRUE(silent.HearsTheEnd());
  EXPECT_TRUE(good.HearsTheEnd());
  EXPECT_FALSE(Peer(options_.path).connected());
}

}  // namespace
}  // namespace fisherd::server
