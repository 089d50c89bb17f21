// Errors that say which factor they are about (SPEC §6).

#ifndef FISHERD_SERVER_FACTOR_ERROR_H_
#define FISHERD_SERVER_FACTOR_ERROR_H_

#include <string_view>

#include "absl/status/status.h"

namespace fisherd::server {

// `status` with the factor in its metadata and, unless it is there already, in its message. OK
// stays OK.
absl::Status NameFactor(const absl::Status& status, std::string_view factor);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_ERROR_H_
