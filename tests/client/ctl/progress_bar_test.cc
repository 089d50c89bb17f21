#include "client/ctl/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace fisherd::ctl {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

absl::Time g_now;
absl::Time Now() { return g_now; }

TEST(ProgressBarTest, ShowsALongTransferAndLeavesNothing) {
  std::ostringstream out;
  {
    ProgressBar bar(out, /*is_terminal=*/true, &Now);
    g_now += absl::Milliseconds(400);
    bar.Update(1, 4);
    EXPECT_EQ(out.str(), "") << "it may be a short one";
    g_now += absl::Milliseconds(200);
    bar.Update(2, 4);
    EXPECT_THAT(out.str(), HasSubstr("  50 %"));
    g_now += absl::Milliseconds(50);
    bar.Update(3, 4);
    EXPECT_THAT(out.str(), testing::Not(HasSubstr("  75 %"))) << "drawn too recently";
    g_now += absl::Milliseconds(60);
    bar.Update(3, 4);
    EXPECT_THAT(out.str(), HasSubstr("  75 %"));
  }
  EXPECT_THAT(out.str(), EndsWith("\r\033[K"));
}

TEST(ProgressBarTest, IsForTerminals) {
  std::ostringstream out;
  {
    ProgressBar bar(out, /*is_terminal=*/false, &Now);
    g_now += absl::Seconds(10);
    bar.Update(1, 2);
  }
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace fisherd::ctl
