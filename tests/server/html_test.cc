#include "server/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(HtmlTest, NothingThatSomebodyWroteIsMarkup) {
  EXPECT_EQ(Escape("<a href=\"x\" onclick='y'>&amp;"),
            "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;amp;");
  EXPECT_EQ(Escape("a\nb\x01\x7f"), "a\\x0ab\\x01\\x7f");
  EXPECT_EQ(Escape("\xC3\xA9\xFF"), "\xC3\xA9?");
}

TEST(HtmlTest, QueriesAreEncodedForLinks) {
  EXPECT_EQ(EncodeQuery("mlp/0-a_b.c"), "mlp/0-a_b.c");
  EXPECT_EQ(EncodeQuery("a b&c=\"<%+\xC3\xA9"), "a%20b%26c%3D%22%3C%25%2B%C3%A9");
}

TEST(HtmlTest, APageLoadsAndRunsNothing) {
  const HttpServer::Response page = HtmlPage("a <b>", "<p>text</p>", 404);
  EXPECT_EQ(page.status, 404);
  EXPECT_THAT(page.body, HasSubstr("<h1>a &lt;b&gt;</h1>"));
  EXPECT_THAT(page.body, HasSubstr("<p>text</p>"));
  EXPECT_THAT(page.headers, HasSubstr("Content-Security-Policy: default-src 'none';"));
  EXPECT_THAT(page.headers, HasSubstr("X-Frame-Options: DENY\r\n"));
  for (const char* word : {"<script", "<link", "<img", "http://", "https://", "@import", "url("}) {
    EXPECT_THAT(page.body, Not(HasSubstr(word)));
  }
}

TEST(HtmlTest, NumbersAreForPeople) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(int64_t{300} << 20), "300 MiB");
  EXPECT_EQ(HumanNumber(0.00012345), "0.000123");
  EXPECT_EQ(HumanNumber(0), "0");
  EXPECT_EQ(HumanNumber(123456), "123456");
  EXPECT_EQ(HumanNumber(2.5e10), "2.5e10");
  EXPECT_EQ(HumanNumber(-1e-300), "-1e-300");
  EXPECT_EQ(HumanNumber(1e-9), "1e-9");
  EXPECT_EQ(HumanSeconds(3.25), "3.2 s");
  EXPECT_EQ(HumanSeconds(65), "1 min 5 s");
  EXPECT_EQ(HumanSeconds(3 * 3600 + 61), "3 h 1 min");
  EXPECT_EQ(HumanSeconds(90000), "1 d 1 h");
}

TEST(HtmlTest, ASparklineGoesFromLeftToRightAndUp) {
  EXPECT_THAT(Sparkline({0, 1, 2}, "a \"label\""), HasSubstr("aria-label=\"a &quot;label&quot;\""));
  EXPECT_THAT(Sparkline({0, 1, 2}, "x"), HasSubstr("points=\"0.0,22.0 60.0,12.0 120.0,2.0 \""));
  EXPECT_THAT(Sparkline({1}, "x"), Not(HasSubstr("<svg")));
}

TEST(HtmlTest, AMeterStaysWithinItself) {
  EXPECT_THAT(Meter(0.5, "half"), HasSubstr("width:50.0%"));
  EXPECT_THAT(Meter(7, "x"), HasSubstr("width:100.0%"));
}

}  // namespace
}  // namespace fisherd::server
