#include "client/ctl/format.h"

#include <gtest/gtest.h>

#include <limits>

namespace fisherd::ctl {
namespace {

TEST(FormatTest, Thousands) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1000), "1,000");
  EXPECT_EQ(WithThousands(-999), "-999");
  EXPECT_EQ(WithThousands(-1234567), "-1,234,567");
  EXPECT_EQ(WithThousands(std::numeric_limits<int64_t>::max()), "9,223,372,036,854,775,807");
}

TEST(FormatTest, BytesInIecUnits) {
  EXPECT_EQ(Bytes(0), "0 B");
  EXPECT_EQ(Bytes(1023), "1023 B");
  EXPECT_EQ(Bytes(1024), "1.00 KiB");
  EXPECT_EQ(Bytes(1536), "1.50 KiB");
  EXPECT_EQ(Bytes(20 << 10), "20.0 KiB");
  EXPECT_EQ(Bytes(300 << 20), "300 MiB");
  EXPECT_EQ(Bytes(std::numeric_limits<int64_t>::max()), "8.00 EiB");
}

TEST(FormatTest, TablesAlignNumbersRightAndWordsLeft) {
  EXPECT_EQ(Table({{"NAME", "STEPS", "NOTE"}, {"a", "1,000", ""}, {"mlp/0", "7", "x"}}),
            "NAME   STEPS  NOTE\n"
            "a      1,000\n"
            "mlp/0      7  x\n");
}

TEST(FormatTest, TablesCountCodePointsNotBytes) {
  EXPECT_EQ(Table({{"λ", "x"}, {"ab", "y"}}), "λ   x\nab  y\n");
}

TEST(FormatTest, TablesOfAHeadingAlone) { EXPECT_EQ(Table({{"NAME", "VALUE"}}), "NAME  VALUE\n"); }

TEST(FormatTest, ProgressShowsShareSizeAndRate) {
  EXPECT_EQ(Progress(0, 10 << 20, 0), "   0 % [....................]  0 B of 10.0 MiB, 0 B/s");
  EXPECT_EQ(Progress(5 << 20, 10 << 20, 0.5),
            "  50 % [##########..........]  5.00 MiB of 10.0 MiB, 10.0 MiB/s");
  EXPECT_EQ(Progress(4, 4, 1), " 100 % [####################]  4 B of 4 B, 4 B/s");
}

}  // namespace
}  // namespace fisherd::ctl
