// Strings as JSON has them.

#ifndef FISHERD_SERVER_JSON_H_
#define FISHERD_SERVER_JSON_H_

#include <string>

#include "absl/strings/string_view.h"

namespace fisherd::server {

// `text` in quotation marks. What is not UTF-8 in it becomes '?'.
std::string JsonString(absl::string_view text);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_JSON_H_
