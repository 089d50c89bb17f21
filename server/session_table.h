// Which trainer's stream is live.

#ifndef FISHERD_SERVER_SESSION_TABLE_H_
#define FISHERD_SERVER_SESSION_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "core/factor.h"
#include "core/mutex.h"

namespace fisherd::server {

class Session;

// The sessions of one server: at most one per client, the one with the highest stream number.
// Thread-safe. Must outlive its sessions.
class SessionTable {
 public:
  // `max_streams` (≥ 1) clients at once.
  explicit SessionTable(size_t max_streams) : max_streams_(max_streams) {}

  // A stream has begun; nobody knows whose. There are at most max_streams of such: the oldest,
  // which has had more time than anybody needs to say who it is, gives way to a new one
  // (RESOURCE_EXHAUSTED, TOO_MANY_STREAMS). UNAVAILABLE (SHUTTING_DOWN) after Shutdown.
  absl::Status Add(std::shared_ptr<Session> session);

  // It is `client`'s. Closes an older stream of the same client before it returns.
  //   ABORTED              STREAM_SUPERSEDED: its live stream has this number or a higher one
  //   RESOURCE_EXHAUSTED   TOO_MANY_STREAMS, with a retry delay
  absl::Status Enter(const core::ClientId& client, uint64_t stream,
                     const std::shared_ptr<Session>& session);

  // It has ended.
  void Remove(const std::shared_ptr<Session>& session);

  size_t streams() const {
    core::MutexLock lock(&mutex_);
    return sessions_.size();
  }
  size_t max_streams() const { return max_streams_; }

  // Ends all streams with UNAVAILABLE (SHUTTING_DOWN), and those to come.
  void Shutdown();

 private:
  struct Stream {
    uint64_t number = 0;
    std::shared_ptr<Session> session;
  };

  const size_t max_streams_;
  mutable core::Mutex mutex_;  // no session is called while it is held
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Session>> sessions_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Session>> nobodys_ ABSL_GUARDED_BY(mutex_);  // the oldest first
  std::map<core::ClientId, Stream> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SESSION_TABLE_H_
