// Pages of a listing by name.

#ifndef FISHERD_SERVER_PAGING_H_
#define FISHERD_SERVER_PAGING_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fisherd::server {

struct Page {
  std::string prefix;
  std::string after;  // the last name of the page before
  size_t size = 0;
};

// The next page's token: opaque to the caller, the last name of this page to us. So whatever comes
// and goes between pages, a name that stays is listed exactly once.
std::string PageToken(std::string_view last_name);

// INVALID_ARGUMENT for a negative page_size, or a token that PageToken did not make for `prefix`.
absl::StatusOr<Page> ParsePage(std::string_view prefix, int page_size, std::string_view page_token);

// `request` is a List…Request.
template <typename Request>
absl::StatusOr<Page> PageOf(const Request& request) {
  return ParsePage(request.prefix(), request.page_size(), request.page_token());
}

// Fills a response from `list(prefix, after, limit)`, which gives names in byte order, and
// `add(item)`; `name(item)` is an item's name.
template <typename List, typename Add, typename Name>
std::string FillPage(const Page& page, List list, Add add, Name name) {
  // One more than asked for tells whether this page is the last.
  auto items = list(page.prefix, page.after, page.size + 1);
  const bool more = items.size() > page.size;
  if (more) items.pop_back();
  for (const auto& item : items) add(item);
  return more ? PageToken(name(items.back())) : "";
}

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_PAGING_H_
