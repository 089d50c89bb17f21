#include "client/trainer/progress.h"

#include <cstdio>

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

TEST(ProgressTest, LineShowsTheShareThatIsDone) {
  EXPECT_EQ(ProgressLine("SGD", 1, 3, "note"),
            "  SGD            [##########....................]  33 %  note");
  EXPECT_EQ(ProgressLine("SGD", 0, 3, ""),
            "  SGD            [..............................]   0 %  ");
  EXPECT_EQ(ProgressLine("SGD", 0, 0, ""),
            "  SGD            [##############################] 100 %  ");
}

TEST(ProgressTest, SilentWhereThereIsNoTerminal) {
  std::FILE* file = std::tmpfile();
  Progress progress(file, "SGD");
  progress.Update(1, 2, "note");
  progress.Clear();
  EXPECT_EQ(std::ftell(file), 0);
  std::fclose(file);
}

}  // namespace
}  // namespace fisherd::trainer
