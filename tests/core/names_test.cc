#include "core/names.h"

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(NamesTest, AcceptsNames) {
  for (const std::string& name :
       {std::string("a"), std::string("mlp/layer 0/weights"), std::string("a.b/..c/...x/.h"),
        std::string("émile/Δ/層/😀"), std::string("\xF4\x8F\xBF\xBF"), std::string("\xC2\xA0"),
        std::string("\xED\x9F\xBF"), std::string("\xEE\x80\x80"), std::string(256, 'x'),
        std::string("~!\"\\")}) {
    EXPECT_EQ(CheckName("name", name), absl::OkStatus()) << name;
  }
}

struct Bad {
  std::string name;
  std::string fault;
};

class BadNameTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadNameTest, IsRefused) {
  const absl::Status status = CheckName("damping", GetParam().name);
  EXPECT_THAT(status,
              IsError(absl::StatusCode::kInvalidArgument, reason::kBadName, GetParam().fault));
  EXPECT_EQ(FieldOf(status), "damping");
  EXPECT_THAT(std::string(status.message()), HasSubstr("damping \""));
  EXPECT_LT(status.message().size(), 700);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadNameTest,
    ::testing::Values(Bad{"", "empty"}, Bad{std::string(257, 'x'), "too long"},
                      Bad{std::string(1 << 20, '\xFF'), "too long"}, Bad{"/a", "empty level"},
                      Bad{"a/", "empty level"}, Bad{"a//b", "empty level"}, Bad{"/", "empty level"},
                      Bad{".", "level '.'"}, Bad{"a/../b", "level '.'"}, Bad{"a/.", "level '.'"},
                      Bad{std::string("a\0b", 3), "control"}, Bad{"a\nb", "control"},
                      Bad{"\x1F", "control"}, Bad{"\x7F", "control"}, Bad{"a\xC2\x80", "control"},
                      Bad{"a\xC2\x9F", "control"}, Bad{"\x80", "UTF-8"}, Bad{"\xFF", "UTF-8"},
                      Bad{"a\xC3", "UTF-8"}, Bad{"\xE5\xB1", "UTF-8"}, Bad{"\xF0\x9F\x98", "UTF-8"},
                      Bad{"\xC3(", "UTF-8"}, Bad{"\xC0\xAF", "UTF-8"},  // overlong '/'
                      Bad{"\xC1\xBF", "UTF-8"},                         // overlong DEL
                      Bad{"\xE0\x80\xAF", "UTF-8"},                     // overlong '/'
                      Bad{"\xE0\x9F\xBF", "UTF-8"},                     // overlong U+07FF
                      Bad{"\xF0\x80\x80\xAF", "UTF-8"},                 // overlong '/'
                      Bad{"\xF0\x8F\xBF\xBF", "UTF-8"},                 // overlong U+FFFF
                      Bad{"\xED\xA0\x80", "UTF-8"},                     // surrogate U+D800
                      Bad{"\xED\xBF\xBF", "UTF-8"},                     // surrogate U+DFFF
                      Bad{"\xF4\x90\x80\x80", "UTF-8"},                 // U+110000
                      Bad{"\xF8\x88\x80\x80\x80", "UTF-8"}));

TEST(NamesTest, MessagesEscapeAndCut) {
  const std::string message(
      CheckName("name", std::string("a\n\xFF") + std::string(300, 'y')).message());
  EXPECT_THAT(message, HasSubstr("\"a\\n\\xffyyy"));
  EXPECT_THAT(message, HasSubstr("(303 bytes)"));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  EXPECT_THAT(message, Not(HasSubstr(std::string(100, 'y'))));
}

TEST(NamesTest, QuoteShowsTextAsItIs) {
  EXPECT_EQ(Quote("層/é"), "\"層/é\"");
  EXPECT_EQ(Quote("a\tb"), "\"a\\tb\"");
  EXPECT_EQ(Quote("a\xC2\x85"), "\"a\\xc2\\x85\"");
}

}  // namespace
}  // namespace fisherd::core
