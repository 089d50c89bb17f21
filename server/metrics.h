// What Prometheus is told of a server.

#ifndef FISHERD_SERVER_METRICS_H_
#define FISHERD_SERVER_METRICS_H_

#include <string>

#include "core/factor_registry.h"
#include "server/readiness.h"
#include "server/store/store.h"

namespace fisherd::server {

// Computed when it is asked for, so that what serves pays nothing for it. Thread-safe.
class Metrics {
 public:
  // What it is given must outlive this; `store` is null where nothing is stored.
  Metrics(const core::FactorRegistry* registry, const Store* store, const Readiness* readiness,
          std::string backend)
      : registry_(*registry), store_(store), readiness_(*readiness), backend_(std::move(backend)) {}

  // In Prometheus' text format, version 0.0.4.
  std::string Text() const;
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

 private:
  const core::FactorRegistry& registry_;
  const Store* const store_;
  const Readiness& readiness_;
  const std::string backend_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_METRICS_H_
