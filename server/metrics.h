// What Prometheus is told of a server.

#ifndef FISHERD_SERVER_METRICS_H_
#define FISHERD_SERVER_METRICS_H_

#include <string>
#include <utility>
#include <vector>

#include "core/compute_pool.h"
#include "core/devices.h"
#include "core/factor_registry.h"
#include "server/auth/guard.h"
#include "server/call_metrics.h"
#include "server/factor_gauges.h"
#include "server/readiness.h"
#include "server/session_table.h"
#include "server/store/store.h"

namespace fisherd::server {

// Where the figures come from. All of it outlives who is given it; what may be null is left out
// then.
struct MetricSources {
  core::FactorRegistry* registry = nullptr;
  const core::ComputePool* pool = nullptr;
  const Readiness* readiness = nullptr;
  const Store* store = nullptr;            // may be null
  const SessionTable* sessions = nullptr;  // may be null
  const CallMetrics* calls = nullptr;      // may be null
  const Guard* guard = nullptr;            // may be null
  std::string tls_certificate;             // a file; may be empty
  std::string backend;
  const core::Devices* devices = nullptr;    // may be null
  std::vector<std::string> factor_prefixes;  // of factors with figures of their own
};

// Put together when it is asked for, from counts that cost those who serve next to nothing.
// Thread-safe.
class Metrics {
 public:
  explicit Metrics(MetricSources sources)
      : sources_(std::move(sources)), factors_(sources_.registry, sources_.factor_prefixes) {}

  // In Prometheus' text format, version 0.0.4.
  std::string Text();
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

 private:
  const MetricSources sources_;
  FactorGauges factors_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_METRICS_H_
