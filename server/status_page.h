// The pages that a person looks at: /statusz, and one of each factor.

#ifndef FISHERD_SERVER_STATUS_PAGE_H_
#define FISHERD_SERVER_STATUS_PAGE_H_

#include <memory>
#include <string>
#include <utility>

#include "core/factor_registry.h"
#include "server/factor_history.h"
#include "server/http_server.h"
#include "server/readiness.h"

namespace fisherd::server {

// Thread-safe.
class StatusPages {
 public:
  static constexpr size_t kFactorsPerPage = 100;

  // They must outlive this.
  StatusPages(const core::FactorRegistry* registry, const Readiness* readiness, std::string backend)
      : registry_(*registry),
        readiness_(*readiness),
        backend_(std::move(backend)),
        history_(registry) {}

  // The server and its factors; ?prefix= and ?after= choose which.
  HttpServer::Response Overview(const HttpServer::Request& request) const;
  // One factor, ?name=. 404 if there is none.
  HttpServer::Response Factor(const HttpServer::Request& request) const;

 private:
  std::string FactorRow(const core::FactorInfo& info) const;

  const core::FactorRegistry& registry_;
  const Readiness& readiness_;
  const std::string backend_;
  FactorHistory history_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STATUS_PAGE_H_
