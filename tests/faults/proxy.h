// A TCP proxy that does to connections what networks do: cuts, stalls, delays.

#ifndef FISHERD_TESTS_FAULTS_PROXY_H_
#define FISHERD_TESTS_FAULTS_PROXY_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "core/mutex.h"

namespace fisherd::faults {

// Up is from who connects to the server.
enum Direction { kUp, kDown };

// Listens at a free port of the loopback and passes what comes to a port there. One thread.
// Thread-safe.
class Proxy {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // What befalls one connection.
  struct Fate {
    // Exactly so many bytes pass, then both ends are closed.
    std::array<int64_t, 2> cut_after = {kNever, kNever};
    // Of every byte, either way.
    absl::Duration delay = absl::ZeroDuration();
  };
  // Asked for the first connection, 0, and so on, by the proxy's thread; with the cuts so far.
  using Plan = std::function<Fate(int connection, int cuts)>;

  explicit Proxy(int target, Plan plan = nullptr);
  ~Proxy();

  int port() const { return port_; }

  // Where connections lead from now on; 0: they are closed at once.
  void SetTarget(int port);
  // Closes all connections.
  void CutAll();
  // After so many bytes more nothing passes that way, but no connection is closed.
  void Stall(Direction direction, int64_t after = 0);
  // Waits until bytes are held back by Stall.
  void AwaitStalled(Direction direction);
  // Lets everything pass again.
  void Resume();

  // Connections that were cut, by their fate or by CutAll.
  int cuts() const;
  int64_t passed(Direction direction) const;

 private:
  struct Chunk {
    absl::Time due;
    std::string bytes;
  };
  struct Pipe {
    int from = -1;
    int to = -1;
    std::deque<Chunk> chunks;
    int64_t buffered = 0;
    int64_t cut_after = kNever;
    bool ended = false;  // `from` sends no more
  };
  struct Connection {
    std::array<Pipe, 2> pipes;
    absl::Duration delay;
    bool closed = false;
  };

  void Run();
  // Waits for something to do; false at the end.
  bool Poll();
  void Accept() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Receive(Connection& connection, Pipe& pipe) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send(Connection& connection, Direction direction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Cut(Connection& connection) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();

  const Plan plan_;
  int listener_ = -1;
  int wake_ = -1;
  int port_ = 0;

  mutable core::Mutex mutex_;
  core::CondVar changed_;
  int target_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::array<int64_t, 2> allowance_ ABSL_GUARDED_BY(mutex_) = {kNever, kNever};
  std::array<int64_t, 2> passed_ ABSL_GUARDED_BY(mutex_) = {0, 0};
  int accepted_ ABSL_GUARDED_BY(mutex_) = 0;
  int cuts_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

// Where the first cuts come at the latest, in bytes.
struct Reach {
  int64_t up = 0;
  int64_t down = 0;
};

// Cuts the first `cuts` connections at random, of `seed`: three of four on the way up; one of four
// is slow, too.
Proxy::Plan CutAtRandom(int cuts, unsigned seed, const Reach& reach);

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_PROXY_H_
