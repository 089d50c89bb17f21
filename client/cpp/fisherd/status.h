// What an error of fisherd says beside its code and message.
//
// Every call of the library answers with absl::Status. An error of the server has the server's code
// and message, and carries its google.rpc details as payloads; the functions below decode them.

#ifndef FISHERD_STATUS_H_
#define FISHERD_STATUS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace fisherd {

// The reason of an error, as listed in factor_service.proto ("FACTOR_NOT_FOUND"); empty if it has
// none. This is what programs should tell errors apart by.
std::string ErrorReason(const absl::Status& status);

// What the error is about: "factor", "tower", "field" and the like.
std::map<std::string, std::string> ErrorMetadata(const absl::Status& status);

// How long to wait before trying again, if the server said that trying again may help.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

}  // namespace fisherd

#endif  // FISHERD_STATUS_H_
