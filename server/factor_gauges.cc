#include "server/factor_gauges.h"

#include <algorithm>
#include <set>
#include <variant>

#include "absl/time/time.h"
#include "core/clock.h"
#include "core/kernels/power.h"

namespace fisherd::server {
namespace {

template <typename T>
kernels::Summary Summarize(const core::Matrix& state, double divisor) {
  return kernels::Summarize(state.elements<T>().data(), state.shape().size(), divisor);
}

absl::StatusOr<kernels::Summary> SummaryOf(const core::Matrix& state, double divisor) {
  if (state.device() != nullptr) return state.device()->Summarize(divisor);
  return state.shape().dtype == core::DataType::kFloat64 ? Summarize<double>(state, divisor)
                                                         : Summarize<float>(state, divisor);
}

}  // namespace

std::vector<FactorGauges::Values> FactorGauges::Get() {
  std::vector<Values> all;
  std::set<std::string> seen;  // prefixes may overlap
  for (const std::string& prefix : prefixes_) {
    for (const auto& factor : registry_.List(prefix, "", kMaxFactors - all.size())) {
      if (!seen.insert(factor->name()).second) continue;
      const core::FactorInfo info = factor->Describe();
      Values values{.factor = info.name,
                    .last_step = info.version.step,
                    .effective_weight = info.total_weight};
      if (info.updated != absl::InfinitePast()) {
        values.update_age = absl::ToDoubleSeconds(core::SteadyNow() - info.updated);
      }
      values.covariance = CovarianceOf(*factor, info.version);
      for (const core::RegistrationInfo& registration : info.registrations) {
        const auto* name = std::get_if<std::string>(&registration.op.damping);
        if (name == nullptr) continue;
        const auto damping = registry_.dampings().Resolve(registration.op.damping);
        const std::pair<std::string, double> named(*name, damping.value_or(0));
        if (!damping.ok() ||
            std::count(values.dampings.begin(), values.dampings.end(), named) > 0) {
          continue;
        }
        values.dampings.push_back(named);
      }
      all.push_back(std::move(values));
    }
  }
  return all;
}

std::optional<FactorGauges::Covariance> FactorGauges::CovarianceOf(core::Factor& factor,
                                                                   const core::Version& version) {
  {
    core::MutexLock lock(&mutex_);
    const auto known = known_.find(factor.name());
    if (known != known_.end() && known->second.version == version) return known->second.covariance;
  }
  // Pins the version for as long as it is read; a step that overwrites it comes first.
  const auto image = factor.TryImage();
  if (!image.ok()) return std::nullopt;
  const auto summary = SummaryOf(*image->state, image->divisor());
  if (!summary.ok()) return std::nullopt;
  const Covariance covariance = {
      .least = summary->least,
      .mean = summary->sum / static_cast<double>(image->state->shape().size()),
      .most = summary->most};
  core::MutexLock lock(&mutex_);
  if (known_.size() >= 2 * kMaxFactors) known_.clear();  // of factors that are gone
  known_[factor.name()] = {image->version, covariance};
  return covariance;
}

}  // namespace fisherd::server
