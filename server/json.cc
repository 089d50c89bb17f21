#include "server/json.h"

#include "absl/strings/str_format.h"
#include "server/status.h"

namespace fisherd::server {

std::string JsonString(absl::string_view text) {
  std::string quoted = "\"";
  for (const char c : Utf8Prefix({text.data(), text.size()}, text.size())) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&quoted, "\\u%04x", static_cast<int>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace fisherd::server
