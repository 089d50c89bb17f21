#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "tests/core/factor_harness.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public core::FactorTest {
 protected:
  std::string Text() const { return metrics_.Text(); }

  Readiness readiness_;
  const Metrics metrics_{&*registry_, nullptr, &readiness_, "a \"backend\""};
};

TEST_F(MetricsTest, SaysWhatThereIs) {
  Create("a", Golden());
  Create("b", Golden());
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_factors 2\n"));
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_state_budget_bytes 1048576\n"));
  EXPECT_THAT(Text(), HasSubstr("backend=\"a \\\"backend\\\"\""));
  EXPECT_THAT(Text(), Not(HasSubstr("fisherd_snapshot")));  // nothing is stored
}

TEST_F(MetricsTest, FollowsReadiness) {
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 0\n"));
  readiness_.Set("");
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 1\n"));
  readiness_.Set("shutting down");
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 0\n"));
}

// As Prometheus wants them: each family once, with its help and its type before its values.
TEST_F(MetricsTest, EveryFamilyIsWhole) {
  std::istringstream text(Text());
  std::set<std::string> families;
  std::string family, line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::string first, second, name;
    words >> first >> second >> name;
    if (first == "#" && second == "HELP") {
      family = name;
      EXPECT_TRUE(families.insert(name).second) << name;
      EXPECT_TRUE(line.ends_with(".")) << line;
    } else if (first == "#") {
      EXPECT_EQ(name, family);
    } else {
      EXPECT_EQ(first.substr(0, first.find('{')), family);
      EXPECT_TRUE(first.starts_with("fisherd_")) << line;
    }
  }
  EXPECT_GT(families.size(), 5);
}

}  // namespace
}  // namespace fisherd::server
