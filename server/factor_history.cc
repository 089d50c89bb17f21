#include "server/factor_history.h"

#include <utility>

#include "core/clock.h"

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
    next += every_;
  }
}

void FactorHistory::Look() {
  std::map<std::string, Track> seen;  // those that are gone are not in it
  for (const auto& factor : registry_.List("", "", kMaxFactors)) {
    const core::FactorInfo info = factor->Describe();
    seen[info.name] = {info.version.incarnation, {info.steps_committed}};
  }
  core::MutexLock lock(&mutex_);
  for (auto& [name, track] : seen) {
    const auto before = tracks_.find(name);
    if (before == tracks_.end() || before->second.incarnation != track.incarnation) continue;
    const int64_t now = track.steps.front();
    track.steps = std::move(before->second.steps);
    track.steps.push_back(now);
    if (track.steps.size() > kMaxSamples) track.steps.pop_front();
  }
  tracks_ = std::move(seen);
}

std::vector<double> FactorHistory::RatesOf(const std::string& factor) const {
  core::MutexLock lock(&mutex_);
  std::vector<double> rates;
  const auto found = tracks_.find(factor);
  if (found == tracks_.end()) return rates;
  const auto& steps = found->second.steps;
  for (size_t i = 1; i < steps.size(); ++i) {
    rates.push_back(static_cast<double>(steps[i] - steps[i - 1]) / absl::ToDoubleSeconds(every_));
  }
  return rates;
}

}  // namespace fisherd::server
