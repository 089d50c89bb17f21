// The clock that deadlines and intervals are kept by.

#ifndef FISHERD_CORE_CLOCK_H_
#define FISHERD_CORE_CLOCK_H_

#include <chrono>

#include "absl/time/time.h"

namespace fisherd::core {

// The monotonic clock's time, for which someone who sets the date is of no account. Only to be
// compared with others of this process.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace fisherd::core

#endif  // FISHERD_CORE_CLOCK_H_
