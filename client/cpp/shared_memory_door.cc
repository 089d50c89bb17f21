#include "client/cpp/shared_memory_door.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace fisherd {
namespace {

constexpr std::string_view kGreeting = "fisherd shared memory 1\n";
constexpr size_t kTokenBytes = 16;
constexpr size_t kLongestAnswer = 512;

absl::Status Failed(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("cannot ", what, ": ", std::strerror(errno)));
}

}  // namespace

bool IsLocalPeer(std::string_view peer) {
  return peer.starts_with("unix:") || peer.starts_with("ipv4:127.") ||
         peer.starts_with("ipv6:[::1]") || peer.starts_with("ipv6:%5B::1%5D");
}

absl::StatusOr<std::unique_ptr<SharedMemoryDoor>> SharedMemoryDoor::Enter(
    std::string_view announcement, int fd, absl::Duration timeout) {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return Failed("make a socket");
  std::unique_ptr<SharedMemoryDoor> door(new SharedMemoryDoor(announcement, socket));
  if (absl::Status status = door->Connect(timeout); !status.ok()) return status;
  if (absl::Status status = door->Greet(fd); !status.ok()) return status;
  if (absl::Status status = door->ReadAnswer(); !status.ok()) return status;
  return door;
}

SharedMemoryDoor::~SharedMemoryDoor() { close(socket_); }

absl::Status SharedMemoryDoor::Connect(absl::Duration timeout) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  const size_t path_bytes = announcement_.size() - std::min(announcement_.size(), kTokenBytes);
  if (path_bytes < 1 || path_bytes >= sizeof address.sun_path) {
    return absl::UnavailableError("the server's announcement is not one of a door");
  }
  std::memcpy(address.sun_path, announcement_.data() + kTokenBytes, path_bytes);
  const timeval time = absl::ToTimeval(timeout);
  setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);  // holds for connect too
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Failed("connect to the server's door");
  }
  return absl::OkStatus();
}

absl::Status SharedMemoryDoor::Greet(int fd) {
  std::string greeting(kGreeting);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control = {};
  iovec bytes = {.iov_base = greeting.data(), .iov_len = greeting.size()};
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
  if (sendmsg(socket_, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(greeting.size())) {
    return Failed("speak to the server's door");
  }
  return absl::OkStatus();
}

absl::Status SharedMemoryDoor::ReadAnswer() {
  std::string answer;
  while (!absl::EndsWith(answer, "\n") && answer.size() < kLongestAnswer) {
    std::array<char, kLongestAnswer> buffer;
    const ssize_t bytes = recv(socket_, buffer.data(), buffer.size(), 0);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return Failed("hear the server's door");
    answer.append(buffer.data(), static_cast<size_t>(bytes));
  }
  const std::vector<std::string> words = absl::StrSplit(answer.substr(0, answer.size() - 1), ' ');
  if (words.size() != 3 || words[0] != "ok" || words[2].size() != 2 * kTokenBytes) {
    return absl::UnavailableError(absl::StrCat("the server's door says: ", answer));
  }
  if (absl::HexStringToBytes(words[1]) != announcement_.substr(0, kTokenBytes)) {
    return absl::UnavailableError("the door is another server's");
  }
  token_ = absl::HexStringToBytes(words[2]);
  return absl::OkStatus();
}

bool SharedMemoryDoor::stands() const {
  char byte;
  const ssize_t bytes = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return bytes < 0 && (errno == EAGAIN || errno == EINTR);
}

}  // namespace fisherd
