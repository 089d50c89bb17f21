#include "server/factor_error.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::server {

absl::Status NameFactor(const absl::Status& status, std::string_view factor) {
  auto details = core::GetErrorDetails(status);
  if (!details.has_value()) return status;
  std::string message(status.message());
  const std::string quoted = core::Quote(factor);
  if (!absl::StrContains(message, quoted)) {
    message = absl::StrCat("factor ", quoted, ": ", message);
  }
  details->metadata.emplace("factor", factor);
  return core::MakeError(status.code(), message, *std::move(details));
}

}  // namespace fisherd::server
