#include "core/activity.h"

#include <algorithm>

#include "core/error.h"

namespace fisherd::core {

void Histogram::Observe(absl::Duration time) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), absl::ToDoubleSeconds(time));
  buckets_[bound - kBounds.begin()].fetch_add(1, std::memory_order_relaxed);
  nanoseconds_.fetch_add(absl::ToInt64Nanoseconds(time), std::memory_order_relaxed);
}

Histogram::Counts Histogram::Get() const {
  Counts counts;
  for (size_t i = 0; i < buckets_.size(); ++i) counts.buckets[i] = buckets_[i];
  counts.seconds = static_cast<double>(nanoseconds_) * 1e-9;
  return counts;
}

void ReasonCounts::Add(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  MutexLock lock(&mutex_);
  ++counts_[details.has_value() ? details->reason : absl::StatusCodeToString(status.code())];
}

std::map<std::string, int64_t> ReasonCounts::Get() const {
  MutexLock lock(&mutex_);
  return counts_;
}

}  // namespace fisherd::core
