// Figures of single factors for Prometheus: of those that an operator has chosen.

#ifndef FISHERD_SERVER_FACTOR_GAUGES_H_
#define FISHERD_SERVER_FACTOR_GAUGES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/factor_registry.h"
#include "core/mutex.h"

namespace fisherd::server {

// Thread-safe.
class FactorGauges {
 public:
  // Every factor is a set of time series, so there are at most so many.
  static constexpr size_t kMaxFactors = 100;

  // Of factors whose names start with one of the prefixes. The registry must outlive this.
  FactorGauges(core::FactorRegistry* registry, std::vector<std::string> prefixes)
      : registry_(*registry), prefixes_(std::move(prefixes)) {}

  struct Covariance {
    double least = 0;
    double mean = 0;
    double most = 0;
  };
  struct Values {
    std::string factor;
    int64_t last_step = 0;
    double effective_weight = 0;
    std::optional<double> update_age;                      // seconds; none before the first step
    std::optional<Covariance> covariance;                  // none while it cannot be had
    std::vector<std::pair<std::string, double>> dampings;  // that its results name
  };
  // The first kMaxFactors by name. Reads the state of each that has changed since it was last read.
  std::vector<Values> Get();

 private:
  // Of what it is at `version`, or later.
  std::optional<Covariance> CovarianceOf(core::Factor& factor, const core::Version& version)
      ABSL_LOCKS_EXCLUDED(mutex_);

  core::FactorRegistry& registry_;
  const std::vector<std::string> prefixes_;

  struct Known {
    core::Version version;
    Covariance covariance;
  };
  core::Mutex mutex_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_GAUGES_H_
