// One factor, for a person to look at.

#ifndef FISHERD_SERVER_FACTOR_PAGE_H_
#define FISHERD_SERVER_FACTOR_PAGE_H_

#include <string>
#include <vector>

#include "core/damping_table.h"
#include "core/factor.h"
#include "server/factor_history.h"
#include "server/http_server.h"

namespace fisherd::server {

// A page of what factors of any kind have. Waits a moment for a step that overwrites the
// covariance, and says so where that was not enough.
HttpServer::Response FactorPage(core::Factor& factor, const core::DampingTable& dampings,
                                const std::vector<FactorHistory::Sample>& history);

// "785 × 256", "float32", "2.5 s".
std::string ShapeOf(const core::FactorInfo& info);
const char* TypeOf(const core::FactorInfo& info);
std::string AgeOf(const core::FactorInfo& info);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_PAGE_H_
