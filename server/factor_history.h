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
#include "core/clock.h"
#include "core/factor_registry.h"
#include "core/mutex.h"

namespace fisherd::server {

// A thread looks at so many factors now and then, and keeps how many steps they had: the first by
// name, until somebody asks for others. Thread-safe.
class FactorHistory {
 public:
  static constexpr size_t kMaxFactors = 1000;
  static constexpr size_t kMaxSamples = 61;  // so many less one rates

  struct Sample {
    absl::Time when;    // by the monotonic clock
    int64_t steps = 0;  // committed by then
  };

  // The registry must outlive this. Looks for the first time after `every`.
  explicit FactorHistory(const core::FactorRegistry* registry,
                         absl::Duration every = absl::Seconds(5));
  ~FactorHistory();

  // What was seen of a factor in its present incarnation, oldest first. It is looked at from now
  // on, if need be in place of the one for which nobody has asked for longest.
  std::vector<Sample> Of(const std::string& factor);

  // What the thread does each time.
  void Look(absl::Time now = core::SteadyNow());

 private:
  struct Track {
    uint64_t incarnation = 0;
    uint64_t asked = 0;  // when it was last asked for, by asked_; 0: never
    std::deque<Sample> samples;
  };
  void Loop();

  const core::FactorRegistry& registry_;
  const absl::Duration every_;
  core::Mutex mutex_;
  core::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t asked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Track> tracks_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// Steps a second between samples that follow each other; one less than there are samples.
std::vector<double> RatesOf(const std::vector<FactorHistory::Sample>& samples);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_HISTORY_H_
