#include "server/factor_history.h"

#include <algorithm>
#include <memory>

namespace fisherd::server {

FactorHistory::FactorHistory(const core::FactorRegistry* registry, absl::Duration every)
    : registry_(*registry), every_(every) {
  thread_ = std::thread([this] { Loop(); });
}

FactorHistory::~FactorHistory() {
  {
    core::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void FactorHistory::Loop() {
  absl::Time next = core::SteadyNow() + every_;
  for (;;) {
    {
      core::MutexLock lock(&mutex_);
      while (!stopping_ && core::SteadyNow() < next) changed_.WaitUntil(&mutex_, next);
      if (stopping_) return;
    }
    Look();
    next = std::max(next + every_, core::SteadyNow());  // what was missed is not made up for
  }
}

// Factors have locks of their own, and are asked without this one.
void FactorHistory::Look(absl::Time now) {
  std::map<std::string, std::shared_ptr<core::Factor>> factors;
  {
    core::MutexLock lock(&mutex_);
    for (const auto& [name, track] : tracks_) factors[name] = nullptr;
  }
  for (auto& [name, factor] : factors) factor = registry_.Find(name).value_or(nullptr);
  if (factors.size() < kMaxFactors) {
    for (const auto& factor : registry_.List("", "", kMaxFactors)) {
      if (factors.size() < kMaxFactors) factors.emplace(factor->name(), factor);
    }
  }
  for (const auto& [name, factor] : factors) {
    const core::FactorInfo info = factor == nullptr ? core::FactorInfo() : factor->Describe();
    core::MutexLock lock(&mutex_);
    if (factor == nullptr) {
      tracks_.erase(name);
      continue;
    }
    if (!tracks_.contains(name) && tracks_.size() >= kMaxFactors) continue;
    Track& track = tracks_[name];
    if (track.incarnation != info.version.incarnation) track.samples.clear();
    track.incarnation = info.version.incarnation;
    track.samples.push_back({now, info.steps_committed});
    if (track.samples.size() > kMaxSamples) track.samples.pop_front();
  }
}

std::vector<FactorHistory::Sample> FactorHistory::Of(const std::string& factor) {
  core::MutexLock lock(&mutex_);
  if (!tracks_.contains(factor) && tracks_.size() >= kMaxFactors) {
    // Of several for which nobody has asked, the last.
    auto longest = tracks_.begin();
    for (auto it = tracks_.begin(); it != tracks_.end(); ++it) {
      if (it->second.asked <= longest->second.asked) longest = it;
    }
    tracks_.erase(longest);
  }
  Track& track = tracks_[factor];
  track.asked = ++asked_;
  return {track.samples.begin(), track.samples.end()};
}

std::vector<double> RatesOf(const std::vector<FactorHistory::Sample>& samples) {
  std::vector<double> rates;
  for (size_t i = 1; i < samples.size(); ++i) {
    const double seconds = absl::ToDoubleSeconds(samples[i].when - samples[i - 1].when);
    const auto steps = static_cast<double>(samples[i].steps - samples[i - 1].steps);
    rates.push_back(seconds > 0 ? steps / seconds : 0);
  }
  return rates;
}

}  // namespace fisherd::server
