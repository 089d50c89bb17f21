#include "server/shared_memory_door.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/clock.h"
#include "server/log.h"
#include "server/unix_socket.h"

namespace fisherd::server {
namespace {

constexpr absl::string_view kGreeting = "fisherd shared memory 1\n";
constexpr int kBacklog = 128;
// Until there may be file descriptors again.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

absl::Status Failed(absl::string_view what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("cannot ", what, " the socket ", path,
                                             " for shared memory: ", std::strerror(errno)));
}

// What fits the buffer of a fresh socket, or nothing.
bool Say(int fd, const std::string& words) {
  return send(fd, words.data(), words.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(words.size());
}

void SayError(int fd, absl::string_view why) { Say(fd, absl::StrCat("error ", why, "\n")); }

struct Received {
  ssize_t bytes = 0;
  std::vector<int> fds;
};

Received Receive(int fd, std::span<char> buffer) {
  // Room for two, as the system rounds up: more than one is a mistake that can be told.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control;
  iovec bytes = {.iov_base = buffer.data(), .iov_len = buffer.size()};
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  Received received;
  received.bytes = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received.bytes < 0) return received;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    received.fds.resize(count);
    std::memcpy(received.fds.data(), CMSG_DATA(part), count * sizeof(int));
  }
  return received;
}

}  // namespace

SharedMemoryDoor::SharedMemoryDoor(const Options& options)
    : options_(options), regions_(options.limit) {}

absl::StatusOr<std::unique_ptr<SharedMemoryDoor>> SharedMemoryDoor::Open(const Options& options) {
  std::unique_ptr<SharedMemoryDoor> door(new SharedMemoryDoor(options));
  if (absl::Status status = door->Listen(); !status.ok()) return status;
  door->thread_ = std::thread([door = door.get()] { door->Run(); });
  return door;
}

absl::Status SharedMemoryDoor::Listen() {
  const std::string& path = options_.path;
  if (absl::Status status = CheckSocketIsFree(path); !status.ok()) return status;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  announcement_ = RandomToken() + (error ? path : absolute.string());
  stop_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (stop_ < 0 || listener < 0) {
    if (listener >= 0) close(listener);
    return Failed("make", path);
  }
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  std::strncpy(address.sun_path, path.c_str(), kMaxSocketPath);
  unlink(path.c_str());  // nobody listens at it
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const absl::Status status = Failed("bind", path);
    close(listener);
    return status;
  }
  listener_ = listener;  // from here on the file is ours to remove
  if (absl::Status status = SetSocketMode(path); !status.ok()) return status;
  return listen(listener_, kBacklog) == 0 ? absl::OkStatus() : Failed("listen at", path);
}

SharedMemoryDoor::~SharedMemoryDoor() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  for (Peer& peer : peers_) Close(peer);
  if (listener_ >= 0) {
    close(listener_);
    unlink(options_.path.c_str());
  }
  if (stop_ >= 0) close(stop_);
}

void SharedMemoryDoor::Run() {
  absl::Time paused = absl::InfinitePast();
  while (true) {
    const absl::Time before = core::SteadyNow();
    absl::Time wake = before < paused ? paused : absl::InfiniteFuture();
    std::vector<pollfd> polled = {
        {.fd = stop_, .events = POLLIN, .revents = 0},
        {.fd = before < paused ? -1 : listener_, .events = POLLIN, .revents = 0}};
    for (const Peer& peer : peers_) {
      polled.push_back({.fd = peer.fd, .events = POLLIN, .revents = 0});
      wake = std::min(wake, peer.deadline);
    }
    const int timeout =
        wake == absl::InfiniteFuture()
            ? -1
            : static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(wake - before) + 1));
    if (poll(polled.data(), polled.size(), timeout) < 0 && errno != EINTR) {
      LogError("no more memory is shared: cannot poll: ", std::strerror(errno));
      return;
    }
    if (polled[0].revents != 0) return;
    const absl::Time now = core::SteadyNow();
    for (size_t i = 0; i < peers_.size(); ++i) {
      const bool stays = polled[i + 2].revents == 0 ? now < peers_[i].deadline : Hear(peers_[i]);
      if (!stays) Close(peers_[i]);
    }
    std::erase_if(peers_, [](const Peer& peer) { return peer.fd < 0; });
    if (polled[1].revents != 0 && !Accept()) paused = now + kAcceptPause;
  }
}

bool SharedMemoryDoor::Accept() {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
  if (peers_.size() >= options_.max_connections) {
    SayError(fd, absl::StrCat("the server has ", peers_.size(),
                              " clients that share memory, as many as it takes"));
    close(fd);
  } else {
    peers_.push_back({.fd = fd, .deadline = core::SteadyNow() + options_.handshake_timeout});
  }
  return true;
}

bool SharedMemoryDoor::Hear(Peer& peer) {
  std::array<char, 64> buffer;
  const Received received = Receive(peer.fd, buffer);
  if (received.bytes < 0) return errno == EAGAIN || errno == EINTR;
  for (const int fd : received.fds) {
    if (peer.memory < 0 && peer.token.empty() && received.fds.size() == 1) {
      peer.memory = fd;
    } else {
      close(fd);
    }
  }
  // Gone, or it goes on after it has its answer.
  if (received.bytes == 0 || !peer.token.empty()) return false;
  peer.said.append(buffer.data(), static_cast<size_t>(received.bytes));
  return Answer(peer);
}

bool SharedMemoryDoor::Answer(Peer& peer) {
  if (!absl::StartsWith(kGreeting, peer.said)) {
    SayError(peer.fd, "expected 'fisherd shared memory 1' and a newline");
    return false;
  }
  if (peer.said.size() < kGreeting.size()) return true;
  if (peer.memory < 0) {
    SayError(peer.fd, "expected one file descriptor with the greeting");
    return false;
  }
  absl::StatusOr<std::string> token = regions_.Add(peer.memory);
  close(std::exchange(peer.memory, -1));
  if (!token.ok()) {
    SayError(peer.fd, token.status().message());
    return false;
  }
  peer.token = *std::move(token);
  peer.deadline = absl::InfiniteFuture();
  const std::string server = announcement_.substr(0, SharedRegions::kTokenBytes);
  return Say(peer.fd, absl::StrCat("ok ", absl::BytesToHexString(server), " ",
                                   absl::BytesToHexString(peer.token), "\n"));
}

void SharedMemoryDoor::Close(Peer& peer) {
  if (!peer.token.empty()) regions_.Remove(peer.token);
  if (peer.memory >= 0) close(peer.memory);
  close(std::exchange(peer.fd, -1));
}

}  // namespace fisherd::server
