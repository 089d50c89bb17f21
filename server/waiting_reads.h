// The reads that wait for their factor, so that cancellation and shutdown reach them.

#ifndef FISHERD_SERVER_WAITING_READS_H_
#define FISHERD_SERVER_WAITING_READS_H_

#include <cstdint>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "core/factor.h"
#include "core/mutex.h"

namespace fisherd::server {

class WaitingRead;

// All of a server's. Thread-safe; must outlive them.
class WaitingReads {
 public:
  // Ends what waits, and what is started from now on: UNAVAILABLE (SHUTTING_DOWN).
  void Shutdown();

 private:
  friend class WaitingRead;

  core::Mutex mutex_;
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<WaitingRead*> reads_ ABSL_GUARDED_BY(mutex_);
};

// The reads of one call, one after the other. Thread-safe.
class WaitingRead {
 public:
  explicit WaitingRead(WaitingReads* reads);
  ~WaitingRead();
  WaitingRead(const WaitingRead&) = delete;
  WaitingRead& operator=(const WaitingRead&) = delete;

  // As Factor::StartRead, one read at a time. `callback` comes exactly once, from a thread of the
  // factor's pool, or, if the read has ended before it began, from here; it may destroy this.
  void Start(const std::shared_ptr<core::Factor>& factor, const core::ReadRequest& request,
             core::ReadCallback callback);

  // The read, unless it has been answered, and those that are started from now on end with
  // `status`.
  void End(const absl::Status& status);

 private:
  WaitingReads* const reads_;
  core::Mutex mutex_;  // after reads_->mutex_, before the factor's
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<core::Factor> factor_ ABSL_GUARDED_BY(mutex_);  // null: it does not wait
  uint64_t number_ ABSL_GUARDED_BY(mutex_) = 0;                   // the factor's
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_WAITING_READS_H_
