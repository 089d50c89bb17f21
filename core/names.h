// Names of factors and dampings.

#ifndef FISHERD_CORE_NAMES_H_
#define FISHERD_CORE_NAMES_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace fisherd::core {

inline constexpr int kMaxNameBytes = 256;

// OK if `name` is 1 to 256 bytes of UTF-8 without control characters, with no level between `/`
// empty, `.` or `..`; otherwise INVALID_ARGUMENT (BAD_NAME). `field` says whose name it is.
absl::Status CheckName(std::string_view field, std::string_view name);

// `name` in quotes, for messages; escaped and cut if it is not text or too long for a name.
std::string Quote(std::string_view name);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_NAMES_H_
