// What the factors of a server have done since it started, for its metrics.

#ifndef FISHERD_CORE_ACTIVITY_H_
#define FISHERD_CORE_ACTIVITY_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/mutex.h"

namespace fisherd::core {

// How long something took, each time. Thread-safe; Observe takes no lock.
class Histogram {
 public:
  // Upper ends of the buckets, in seconds; one more takes what is above.
  static constexpr std::array<double, 13> kBounds = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1,
                                                     0.3,    1,      3,     10,    30,   100};
  struct Counts {
    std::array<int64_t, kBounds.size() + 1> buckets{};  // each without those below it
    double seconds = 0;                                 // of all
  };

  void Observe(absl::Duration time);
  Counts Get() const;

 private:
  std::array<std::atomic<int64_t>, kBounds.size() + 1> buckets_{};
  std::atomic<int64_t> nanoseconds_ = 0;
};

// How often each reason of an error came (core/error.h, so there are few). Thread-safe.
class ReasonCounts {
 public:
  void Add(const absl::Status& status);
  std::map<std::string, int64_t> Get() const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, int64_t> counts_ ABSL_GUARDED_BY(mutex_);
};

// Only ever grows.
struct Activity {
  std::atomic<int64_t> steps_whole = 0;
  std::atomic<int64_t> steps_partial = 0;
  std::atomic<int64_t> steps_failed = 0;

  // Batches that were begun, by what was said to them. Those that were accepted may be refused
  // later, for what their rows are.
  std::atomic<int64_t> batches_accepted = 0;
  std::atomic<int64_t> batches_duplicate = 0;
  std::atomic<int64_t> batches_held = 0;
  std::atomic<int64_t> batch_rows = 0;  // of those accepted
  ReasonCounts batches_refused;

  Histogram gather_wait;  // of a step, from its first batch to what ended its waiting
  Histogram compute;      // of a step: products and moving average
  Histogram record;       // of a step at SYNC: until it is on the disk

  std::atomic<int64_t> reads_full = 0;
  std::atomic<int64_t> reads_unchanged = 0;
  std::atomic<int64_t> reads_failed = 0;
  std::atomic<int64_t> results_computed = 0;  // registered ones
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_ACTIVITY_H_
