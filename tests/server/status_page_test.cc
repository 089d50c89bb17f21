#include "server/status_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/core/factor_harness.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class StatusPageTest : public core::FactorTest {
 protected:
  std::string Overview(const std::map<std::string, std::string>& query = {}) {
    return pages_.Overview({.query = query}).body;
  }
  HttpServer::Response Factor(const std::string& name) {
    return pages_.Factor({.query = {{"name", name}}});
  }

  Readiness readiness_;
  StatusPages pages_{&*registry_, &readiness_, "cpu <x>"};
};

TEST_F(StatusPageTest, ShowsTheServerAndItsFactors) {
  EXPECT_THAT(Overview(), HasSubstr("There are none."));
  EXPECT_THAT(Overview(), HasSubstr("<span class=\"bad\">starting</span>"));
  readiness_.Set("");
  Create("mlp/0", Golden());
  Create("mlp/1 & <b>", Golden(2));
  const std::string page = Overview();
  EXPECT_THAT(page, HasSubstr("<dd>serving</dd>"));
  EXPECT_THAT(page, HasSubstr("cpu &lt;x&gt;"));
  EXPECT_THAT(page, HasSubstr("<a href=\"/statusz/factor?name=mlp/0\">mlp/0</a>"));
  EXPECT_THAT(page, HasSubstr("name=mlp/1%20%26%20%3Cb%3E\">mlp/1 &amp; &lt;b&gt;</a>"));
  EXPECT_THAT(page, HasSubstr("<td>3 × 2</td>"));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
}

TEST_F(StatusPageTest, ChoosesByPrefixAndShowsPages) {
  for (size_t i = 0; i < StatusPages::kFactorsPerPage + 1; ++i) {
    Create(absl::StrFormat("a/%03d", i), Spec(1, 1));
  }
  Create("b", Spec(1, 1));
  const std::string first = Overview({{"prefix", "a/"}});
  EXPECT_THAT(first, HasSubstr(">a/099<"));
  EXPECT_THAT(first, Not(HasSubstr(">a/100<")));
  EXPECT_THAT(first, HasSubstr("href=\"/statusz?prefix=a/&amp;after=a/099\">more</a>"));
  const std::string second = Overview({{"prefix", "a/"}, {"after", "a/099"}});
  EXPECT_THAT(second, HasSubstr(">a/100<"));
  EXPECT_THAT(second, Not(HasSubstr(">more<")));
  EXPECT_THAT(second, Not(HasSubstr(">b<")));
  EXPECT_THAT(Overview({{"prefix", "\"><script>"}}),
              HasSubstr("value=\"&quot;&gt;&lt;script&gt;\""));
}

TEST_F(StatusPageTest, OneFactorsPageHasItsFiguresAndResults) {
  const auto factor = Create("f", Golden());
  ASSERT_TRUE(registry_->SetDamping("d", 0.25).ok());
  ASSERT_TRUE(
      registry_
          ->Register(
              "f",
              {.kind = core::OperatorKind::kMatpower, .exponent = -1, .damping = std::string("d")},
              {})
          .ok());
  EXPECT_THAT(Factor("f").body, HasSubstr("<dd>never</dd>"));
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  const auto page = Factor("f");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.body, HasSubstr("Heat map of the covariance: entries from 0.625 to 34"));
  EXPECT_THAT(page.body, HasSubstr("Histogram of 6 entries"));
  EXPECT_THAT(page.body, HasSubstr("matpower(-1, damping &quot;d&quot;)"));
  EXPECT_THAT(page.body, HasSubstr("<td>open</td><td>1</td>"));
}

TEST_F(StatusPageTest, WhatIsNotThereIsSaid) {
  EXPECT_EQ(Factor("<none>").status, 404);
  EXPECT_THAT(Factor("<none>").body, HasSubstr("there is no factor &quot;&lt;none&gt;&quot;"));
  EXPECT_EQ(Factor("").status, 404);
}

}  // namespace
}  // namespace fisherd::server
