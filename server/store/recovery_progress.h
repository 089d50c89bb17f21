// How far a recovery is: in the log now and then, and for whoever asks.

#ifndef FISHERD_SERVER_STORE_RECOVERY_PROGRESS_H_
#define FISHERD_SERVER_STORE_RECOVERY_PROGRESS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "core/mutex.h"

namespace fisherd::server {

struct Recovery {
  bool done = false;
  int64_t factors = 0;  // that there are
  int64_t restored = 0;
  int64_t damaged = 0;
  absl::Duration time;  // until now, or the end
};

// Thread-safe.
class RecoveryProgress {
 public:
  void Begin(int64_t factors) ABSL_LOCKS_EXCLUDED(mutex_);
  // One more is restored, or damaged.
  void Add(bool restored) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish() ABSL_LOCKS_EXCLUDED(mutex_);

  Recovery Get() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable core::Mutex mutex_;
  Recovery recovery_ ABSL_GUARDED_BY(mutex_);  // its time, once it is done
  absl::Time began_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time told_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_RECOVERY_PROGRESS_H_
