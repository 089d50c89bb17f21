#include "server/paging.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/error.h"

namespace fisherd::server {
namespace {

constexpr int kDefaultPage = 100;
constexpr int kLargestPage = 1000;

absl::Status BadField(std::string_view field, std::string_view message) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kBadArgument, message,
                         {{"field", std::string(field)}});
}

}  // namespace

std::string PageToken(std::string_view last_name) {
  return absl::WebSafeBase64Escape(std::string(last_name));
}

absl::StatusOr<Page> ParsePage(std::string_view prefix, int page_size,
                               std::string_view page_token) {
  if (page_size < 0) {
    return BadField("page_size",
                    absl::StrCat("page_size is ", page_size, "; expected 0 to ", kLargestPage));
  }
  Page page{.prefix = std::string(prefix), .after = {}, .size = {}};
  page.size = page_size == 0 ? kDefaultPage : std::min(page_size, kLargestPage);
  if (page_token.empty()) return page;
  if (!absl::WebSafeBase64Unescape(std::string(page_token), &page.after) || page.after.empty() ||
      !absl::StartsWith(page.after, page.prefix)) {
    return BadField("page_token",
                    "page_token is not one of this listing; expected next_page_token of the page "
                    "before, with the same prefix");
  }
  return page;
}

}  // namespace fisherd::server
