#include "server/status_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "absl/strings/str_format.h"
#include "server/html.h"
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

  std::string why_not_ready_;
  StatusPages pages_{&*registry_, [this] { return why_not_ready_; }, "cpu <x>"};
};

TEST_F(StatusPageTest, ShowsTheServerAndItsFactors) {
  why_not_ready_ = "recovering: 1 of 2 factors";
  EXPECT_THAT(Overview(), HasSubstr("There are none."));
  EXPECT_THAT(Overview(), HasSubstr("<span class=\"bad\">recovering: 1 of 2 factors</span>"));
  why_not_ready_ = "";
  Create("mlp/0", Golden());
  Create("mlp/1 & <b>", Golden(2));
  const std::string page = Overview();
  EXPECT_THAT(page, HasSubstr("<dd>serving</dd>"));
  EXPECT_THAT(page, HasSubstr("cpu &lt;x&gt;"));
  EXPECT_THAT(page, HasSubstr("<a href=\"/statusz/factor?name=mlp/0\">mlp/0</a>"));
  EXPECT_THAT(page, HasSubstr("name=mlp/1%20%26%20%3Cb%3E\">mlp/1 &amp; &lt;b&gt;</a>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"wide\">3 × 2</td>"));
  EXPECT_THAT(page, HasSubstr("<td>never</td>"));
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
  EXPECT_THAT(first, HasSubstr("href=\"/statusz?prefix=a/&amp;after=a/099\">the next 100</a>"));
  EXPECT_THAT(first, Not(HasSubstr("from the first")));
  const std::string second = Overview({{"prefix", "a/"}, {"after", "a/099"}});
  EXPECT_THAT(second, HasSubstr(">a/100<"));
  EXPECT_THAT(second, Not(HasSubstr("the next")));
  EXPECT_THAT(second, HasSubstr("<a href=\"/statusz?prefix=a/\">from the first</a>"));
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
  EXPECT_THAT(page.body, HasSubstr("<td>when it is read</td><td>not yet</td><td>–</td><td>0.25<"));
  std::promise<absl::StatusOr<int>> updated;
  factor->UpdateInverses([&](absl::StatusOr<int> count) { updated.set_value(count); });
  ASSERT_TRUE(updated.get_future().get().ok());
  EXPECT_THAT(Factor("f").body, HasSubstr("<td>when it is read</td><td>1</td><td>0.25</td>"));
  ASSERT_TRUE(registry_->DeleteDamping("d").ok());
  EXPECT_THAT(Factor("f").body, HasSubstr("<td>not set</td>"));
}

TEST_F(StatusPageTest, AFactorWithoutStepsHasAPageToo) {
  Create("f", Golden());
  const std::string page = Factor("f").body;
  EXPECT_THAT(page, HasSubstr("Every entry is 0."));
  EXPECT_THAT(page, HasSubstr("Histogram of 6 entries by powers of ten; 6 are 0"));
  EXPECT_THAT(page, Not(HasSubstr(">1e")));
  EXPECT_THAT(page, HasSubstr("Looked at for too short a time."));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
}

TEST_F(StatusPageTest, AStepThatTakesItsTimeIsWaitedForAMoment) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  backend_.Hold();
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  backend_.AwaitEntered();
  const auto page = Factor("f");
  backend_.Release();
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.body, HasSubstr("Not shown: steps leave no time to look at it"));
  EXPECT_THAT(page.body, HasSubstr("<h2>Towers</h2>"));
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  EXPECT_THAT(Factor("f").body, HasSubstr("Histogram of 6 entries"));
}

TEST_F(StatusPageTest, ADamagedFactorSaysWhy) {
  registry_->Quarantine("f", absl::DataLossError("bad <checksum>"));
  EXPECT_EQ(Factor("f").status, 500);
  EXPECT_THAT(Factor("f").body, HasSubstr("bad &lt;checksum&gt;"));
  EXPECT_THAT(Overview(), HasSubstr("<dt>damaged factors</dt><dd><span class=\"bad\">1</span>"));
}

TEST_F(StatusPageTest, NoNameIsMarkup) {
  for (const std::string& name : {std::string("\"><script>alert(1)</script>"),
                                  std::string("' onfocus='x"), std::string("&lt;b&gt;&amp;"),
                                  std::string("a%3Cb%3E+c d"), std::string("\xC3\xA9/\xE2\x80\xAE"),
                                  std::string("\xFF\xC3"), std::string("a\0b\n<i>", 7)}) {
    const auto created = registry_->Create(name, Spec(1, 1));
    for (const std::string& page : {Overview(), Overview({{"prefix", name}}),
                                    Overview({{"after", name}}), Factor(name).body}) {
      for (const char* markup : {"<script", "<b>", "<i>", "' onfocus", "\">alert", "\xFF"}) {
        EXPECT_THAT(page, Not(HasSubstr(markup)));
      }
    }
    EXPECT_EQ(Factor(name).status, created.ok() ? 200 : 400);
    if (created.ok()) {
      EXPECT_THAT(Overview(),
                  HasSubstr("name=" + EncodeQuery(name) + "\">" + Escape(name) + "</a>"));
      EXPECT_TRUE(registry_->Delete(name).ok());
    }
  }
}

TEST_F(StatusPageTest, WhatIsNotThereIsSaid) {
  EXPECT_EQ(Factor("<none>").status, 404);
  EXPECT_THAT(Factor("<none>").body, HasSubstr("there is no factor &quot;&lt;none&gt;&quot;"));
  EXPECT_EQ(Factor("").status, 400);
}

}  // namespace
}  // namespace fisherd::server
