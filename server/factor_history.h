// How factors have moved lately.

#ifndef FISHERD_SERVER_FACTOR_HISTORY_H_
#define FISHERD_SERVER_FACTOR_HISTORY_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "core/factor_registry.h"
#include "core/mutex.h"

namespace fisherd::server {

// A thread looks at the factors now and then, and keeps how many steps they had. Thread-safe.
class FactorHistory {
 public:
  static constexpr size_t kMaxFactors = 1000;  // the first by name; others have no history
  static constexpr size_t kMaxSamples = 61;    // so many less one rates

  // The registry must outlive this. Looks for the first time after `every`.
  explicit FactorHistory(const core::FactorRegistry* registry,
                         absl::Duration every = absl::Seconds(5));
  ~FactorHistory();

  // Steps a second, oldest first; empty until it has been looked at twice.
  std::vector<double> RatesOf(const std::string& factor) const;
  absl::Duration every() const { return every_; }

  // What the thread does each time.
  void Look();

 private:
  struct Track {
    uint64_t incarnation = 0;
    std::deque<int64_t> steps;
  };
  void Loop();

  const core::FactorRegistry& registry_;
  const absl::Duration every_;
  mutable core::Mutex mutex_;
  core::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Track> tracks_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_HISTORY_H_
