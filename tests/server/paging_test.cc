#include "server/paging.h"

#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PagingTest, SizesHaveADefaultAndAMost) {
  EXPECT_EQ(ParsePage("", 0, "")->size, 100);
  EXPECT_EQ(ParsePage("", 7, "")->size, 7);
  EXPECT_EQ(ParsePage("", 1000, "")->size, 1000);
  EXPECT_EQ(ParsePage("", 1001, "")->size, 1000);
}

TEST(PagingTest, ATokenLeadsBackToItsName) {
  for (const std::string name : {"a", "mlp/0", "größe/?&", "\xf0\x9f\x98\x80"}) {
    const auto page = ParsePage(name.substr(0, 1), 0, PageToken(name));
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->after, name);
  }
}

TEST(PagingTest, WhatIsNoPageIsRefused) {
  struct Case {
    std::string prefix;
    int size;
    std::string token;
    const char* field;
    const char* message;
  };
  const Case cases[] = {
      {"", -1, "", "page_size", "page_size is -1; expected 0 to 1000"},
      {"", 0, "!", "page_token", "page_token is not one of this listing"},
      {"b", 0, PageToken("a"), "page_token", "with the same prefix"},
  };
  for (const Case& c : cases) {
    const absl::Status status = ParsePage(c.prefix, c.size, c.token).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    const auto details = core::GetErrorDetails(status);
    ASSERT_TRUE(details.has_value());
    EXPECT_EQ(details->reason, core::reason::kBadArgument);
    EXPECT_EQ(details->metadata.at("field"), c.field);
  }
}

TEST(PagingTest, PagesCoverTheListingOnce) {
  const std::set<std::string> names = {"a", "b", "c", "d"};
  const auto list = [&](const std::string& prefix, const std::string& after, size_t limit) {
    std::vector<std::string> found;
    for (const std::string& name : names) {
      if (name > after && name.starts_with(prefix) && found.size() < limit) found.push_back(name);
    }
    return found;
  };
  std::vector<std::string> seen;
  const auto add = [&](const std::string& name) { seen.push_back(name); };
  const auto name = [](const std::string& item) { return item; };

  const std::string token = FillPage(*ParsePage("", 2, ""), list, add, name);
  EXPECT_THAT(seen, ElementsAre("a", "b"));
  // The last page is full, and still the last.
  EXPECT_EQ(FillPage(*ParsePage("", 2, token), list, add, name), "");
  EXPECT_THAT(seen, ElementsAre("a", "b", "c", "d"));
}

}  // namespace
}  // namespace fisherd::server
