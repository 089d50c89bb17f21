#include "server/store/recovery_progress.h"

#include <gtest/gtest.h>

namespace fisherd::server {
namespace {

TEST(RecoveryProgressTest, CountsWhatIsDone) {
  RecoveryProgress progress;
  EXPECT_EQ(progress.Get().time, absl::ZeroDuration());
  progress.Begin(3);
  progress.Add(true);
  progress.Add(false);
  Recovery recovery = progress.Get();
  EXPECT_FALSE(recovery.done);
  EXPECT_EQ(recovery.factors, 3);
  EXPECT_EQ(recovery.restored, 1);
  EXPECT_EQ(recovery.damaged, 1);
  EXPECT_GT(recovery.time, absl::ZeroDuration());
  progress.Add(true);
  progress.Finish();
  recovery = progress.Get();
  EXPECT_TRUE(recovery.done);
  EXPECT_EQ(recovery.time, progress.Get().time);
}

}  // namespace
}  // namespace fisherd::server
