// The pages that a person looks at: /statusz, and one of each factor.

#ifndef FISHERD_SERVER_STATUS_PAGE_H_
#define FISHERD_SERVER_STATUS_PAGE_H_

#include <functional>
#include <string>
#include <utility>

#include "core/factor_registry.h"
#include "server/factor_history.h"
#include "server/http_server.h"

namespace fisherd::server {

// Thread-safe.
class StatusPages {
 public:
  static constexpr size_t kFactorsPerPage = 100;

  // The registry must outlive this. `why_not_ready` is empty when the server serves.
  StatusPages(const core::FactorRegistry* registry, std::function<std::string()> why_not_ready,
              std::string backend)
      : registry_(*registry),
        why_not_ready_(std::move(why_not_ready)),
        backend_(std::move(backend)),
        history_(registry) {}

  // The server and its factors; ?prefix= and ?after= choose which.
  HttpServer::Response Overview(const HttpServer::Request& request);
  // One factor, ?name=. 404 if there is none; 400 if that is no name; 500 if its state is damaged.
  HttpServer::Response Factor(const HttpServer::Request& request);

 private:
  std::string Summary() const;
  std::string FactorRow(const core::FactorInfo& info);

  const core::FactorRegistry& registry_;
  const std::function<std::string()> why_not_ready_;
  const std::string backend_;
  FactorHistory history_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STATUS_PAGE_H_
