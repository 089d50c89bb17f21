#include "client/trainer/svg.h"

#include <cmath>
#include <regex>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RunResult SomeRun(const std::string& name, int epochs) {
  RunResult run;
  run.method.name = name;
  for (int i = 0; i <= epochs; ++i) {
    run.epochs.push_back(
        {.train = {2.3 * std::pow(0.5, i), 0.1}, .test = {2.3, 1 - 0.9 / (i + 1)}});
  }
  return run;
}

// Every element closed, in order; attributes in quotes.
bool WellFormed(const std::string& xml) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z]+)((?: [a-zA-Z-]+=\"[^\"<]*\")*)(/?)>|<");
  for (std::sregex_iterator i(xml.begin(), xml.end(), tag), end; i != end; ++i) {
    const std::smatch& match = *i;
    if (match[0] == "<") return false;
    if (match[1] == "/") {
      if (open.empty() || open.back() != match[2]) return false;
      open.pop_back();
    } else if (match[4] != "/") {
      open.push_back(match[2]);
    }
  }
  return open.empty();
}

TEST(SvgTest, IsWellFormedAndNamesEveryMethod) {
  const std::vector<RunResult> runs = {SomeRun("a<b>&c", 4), SomeRun("Adam", 4)};
  const std::string svg = CurvesSvg(runs);
  EXPECT_TRUE(WellFormed(svg)) << svg;
  EXPECT_FALSE(WellFormed(svg + "<g>"));
  EXPECT_THAT(svg, HasSubstr(">a&lt;b&gt;&amp;c</text>"));
  EXPECT_THAT(svg, HasSubstr(">Adam</text>"));
  EXPECT_THAT(svg, HasSubstr(">4</text>"));
}

TEST(SvgTest, CurvesFallWithTheLoss) {
  const std::string svg = CurvesSvg(std::vector<RunResult>{SomeRun("SGD", 1)});
  // The axis goes from 1 to 2.3.
  EXPECT_THAT(svg, HasSubstr("d=\"M64.0 48.0L464.0 297.7\""));
}

TEST(SvgTest, AccuracyRises) {
  RunResult run = SomeRun("SGD", 1);
  run.epochs[0].test.accuracy = 0;
  run.epochs[1].test.accuracy = 0.9;
  // From the bottom to half of an axis of 0, 90 and 99 %.
  EXPECT_THAT(CurvesSvg(std::vector<RunResult>{run}), HasSubstr("d=\"M536.0 348.0L936.0 198.0\""));
}

TEST(SvgTest, NumbersThatCannotBeDrawn) {
  RunResult run = SomeRun("SGD", 3);
  run.epochs[1].train.loss = 0;
  run.epochs[2].train.loss = INFINITY;
  run.epochs[3].train.loss = NAN;
  const std::string svg = CurvesSvg(std::vector<RunResult>{run, RunResult{}});
  EXPECT_TRUE(WellFormed(svg));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace fisherd::trainer
