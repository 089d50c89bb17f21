// Whether the server serves, and if not, why.

#ifndef FISHERD_SERVER_READINESS_H_
#define FISHERD_SERVER_READINESS_H_

#include <string>
#include <utility>

#include "core/mutex.h"

namespace fisherd::server {

// Thread-safe.
class Readiness {
 public:
  // Empty: it serves.
  void Set(std::string why_not) {
    core::MutexLock lock(&mutex_);
    why_not_ = std::move(why_not);
  }
  std::string why_not() const {
    core::MutexLock lock(&mutex_);
    return why_not_;
  }

 private:
  mutable core::Mutex mutex_;
  std::string why_not_ ABSL_GUARDED_BY(mutex_) = "starting";
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_READINESS_H_
