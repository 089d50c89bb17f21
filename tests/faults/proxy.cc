#include "tests/faults/proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace fisherd::faults {
namespace {

// As much as it takes in ahead of what it passes on; beyond, TCP holds the sender back.
constexpr int64_t kBuffer = 64 << 10;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void SetUpSocket(int fd) {
  fcntl(fd, F_SETFL, O_NONBLOCK);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// −1 if nobody listens there.
int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

Proxy::Proxy(int target, Plan plan) : plan_(std::move(plan)), target_(target) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  listen(listener_, 64);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  thread_ = std::thread([this] { Run(); });
}

Proxy::~Proxy() {
  {
    core::MutexLock lock(&mutex_);
    stop_ = true;
  }
  Wake();
  thread_.join();
  close(listener_);
  close(wake_);
}

void Proxy::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
}

// ---- Faults

void Proxy::SetTarget(int port) {
  core::MutexLock lock(&mutex_);
  target_ = port;
}

void Proxy::CutAll() {
  core::MutexLock lock(&mutex_);
  for (Connection& connection : connections_) Cut(connection);
  Wake();
}

void Proxy::Stall(Direction direction, int64_t after) {
  core::MutexLock lock(&mutex_);
  allowance_[direction] = after;
}

void Proxy::AwaitStalled(Direction direction) {
  core::MutexLock lock(&mutex_);
  while (allowance_[direction] > 0 ||
         std::none_of(connections_.begin(), connections_.end(),
                      [&](const Connection& c) { return c.pipes[direction].buffered > 0; })) {
    changed_.Wait(&mutex_);
  }
}

void Proxy::Resume() {
  core::MutexLock lock(&mutex_);
  allowance_ = {kNever, kNever};
  Wake();
}

int Proxy::cuts() const {
  core::MutexLock lock(&mutex_);
  return cuts_;
}

int64_t Proxy::passed(Direction direction) const {
  core::MutexLock lock(&mutex_);
  return passed_[direction];
}

// ---- The thread

void Proxy::Run() {
  while (Poll()) {
    core::MutexLock lock(&mutex_);
    Accept();
    for (Connection& connection : connections_) {
      for (const Direction direction : {kUp, kDown}) {
        if (!connection.closed) Receive(connection, connection.pipes[direction]);
        if (!connection.closed) Send(connection, direction);
      }
    }
    for (Connection& connection : connections_) {
      if (!connection.closed) continue;
      close(connection.pipes[kUp].from);
      close(connection.pipes[kUp].to);
    }
    std::erase_if(connections_, [](const Connection& c) { return c.closed; });
    changed_.NotifyAll();
  }
  core::MutexLock lock(&mutex_);
  for (Connection& connection : connections_) {
    close(connection.pipes[kUp].from);
    close(connection.pipes[kUp].to);
  }
}

bool Proxy::Poll() {
  std::vector<pollfd> fds = {{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
  absl::Time next = absl::InfiniteFuture();
  {
    core::MutexLock lock(&mutex_);
    if (stop_) return false;
    const absl::Time now = absl::Now();
    for (const Connection& connection : connections_) {
      if (connection.closed) return true;
      std::array<short, 2> events = {0, 0};  // of the sockets that each pipe reads
      for (const Direction direction : {kUp, kDown}) {
        const Pipe& pipe = connection.pipes[direction];
        if (!pipe.ended && pipe.buffered < kBuffer) events[direction] |= POLLIN;
        if (pipe.chunks.empty() || allowance_[direction] == 0) continue;
        if (pipe.chunks.front().due <= now) {
          events[1 - direction] |= POLLOUT;
        } else {
          next = std::min(next, pipe.chunks.front().due);
        }
      }
      for (const Direction direction : {kUp, kDown}) {
        if (events[direction] != 0) {
          fds.push_back({connection.pipes[direction].from, events[direction], 0});
        }
      }
    }
  }
  const int timeout = next == absl::InfiniteFuture()
                          ? -1
                          : static_cast<int>(absl::ToInt64Milliseconds(next - absl::Now())) + 1;
  poll(fds.data(), fds.size(), std::max(timeout, -1));
  uint64_t woken;
  [[maybe_unused]] const ssize_t taken = read(wake_, &woken, sizeof(woken));
  return true;
}

void Proxy::Accept() {
  int client;
  while ((client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0) {
    const int server = target_ == 0 ? -1 : ConnectTo(target_);
    if (server < 0) {
      close(client);
      continue;
    }
    SetUpSocket(client);
    SetUpSocket(server);
    const Fate fate = plan_ ? plan_(accepted_, cuts_) : Fate();
    ++accepted_;
    Connection& connection = connections_.emplace_back();
    connection.delay = fate.delay;
    connection.pipes[kUp].from = connection.pipes[kDown].to = client;
    connection.pipes[kUp].to = connection.pipes[kDown].from = server;
    for (const Direction direction : {kUp, kDown}) {
      connection.pipes[direction].cut_after = fate.cut_after[direction];
    }
  }
}

void Proxy::Receive(Connection& connection, Pipe& pipe) {
  while (!pipe.ended && pipe.buffered < kBuffer) {
    char bytes[16 << 10];
    const ssize_t size = recv(pipe.from, bytes, sizeof(bytes), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
      pipe.ended = true;
      if (pipe.chunks.empty()) connection.closed = true;
      return;
    }
    pipe.chunks.push_back(
        {absl::Now() + connection.delay, std::string(bytes, static_cast<size_t>(size))});
    pipe.buffered += size;
  }
}

void Proxy::Send(Connection& connection, Direction direction) {
  Pipe& pipe = connection.pipes[direction];
  while (!pipe.chunks.empty() && pipe.chunks.front().due <= absl::Now()) {
    if (pipe.cut_after == 0) return Cut(connection);
    std::string& bytes = pipe.chunks.front().bytes;
    const int64_t most = std::min({std::ssize(bytes), pipe.cut_after, allowance_[direction]});
    if (most == 0) return;
    const ssize_t sent = send(pipe.to, bytes.data(), static_cast<size_t>(most), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN && errno != EINTR) connection.closed = true;
      return;
    }
    passed_[direction] += sent;
    pipe.buffered -= sent;
    if (pipe.cut_after != kNever) pipe.cut_after -= sent;
    if (allowance_[direction] != kNever) allowance_[direction] -= sent;
    bytes.erase(0, static_cast<size_t>(sent));
    if (bytes.empty()) pipe.chunks.pop_front();
  }
  if (pipe.cut_after == 0) return Cut(connection);
  if (pipe.ended && pipe.chunks.empty()) connection.closed = true;
}

void Proxy::Cut(Connection& connection) {
  if (std::exchange(connection.closed, true)) return;
  ++cuts_;
}

Proxy::Plan CutAtRandom(int cuts, unsigned seed, const Reach& reach) {
  return [cuts, seed, reach](int connection, int before) {
    Proxy::Fate fate;
    if (before >= cuts) return fate;
    std::minstd_rand random(seed * 10'007 + static_cast<unsigned>(connection));
    random.discard(8);
    const bool up = random() % 4 != 0;
    fate.cut_after[up ? kUp : kDown] =
        static_cast<int64_t>(random() % static_cast<uint64_t>(up ? reach.up : reach.down));
    if (random() % 4 == 0) fate.delay = absl::Microseconds(random() % 3'000);
    return fate;
  };
}

}  // namespace fisherd::faults
