#include "core/kernels/packed.h"

#include <gtest/gtest.h>

#include <vector>

namespace fisherd::kernels {
namespace {

// Every element has a place of its own, and a panel's rows follow on each other.
TEST(PackedTest, PlacesAreDistinctAndWithinTheSize) {
  for (const int lines : {kLeftPanelLines, kRightPanelLines}) {
    for (const int64_t cols : {1, 15, 16, 17, 47, 48, 49, 96, 100, 144}) {
      const PackedShape shape{5, cols, lines};
      std::vector<bool> taken(PackedSize<float>(shape));
      for (int64_t row = 0; row < shape.rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
          const int64_t at = PackedIndex<float>(shape, row, col);
          ASSERT_LT(at, static_cast<int64_t>(taken.size())) << cols;
          EXPECT_FALSE(taken[at]) << cols;
          taken[at] = true;
        }
      }
    }
  }
}

TEST(PackedTest, IsAsSaid) {
  const PackedShape shape{10, 70,
                          kRightPanelLines};  // panels of 48 and 32 columns, 10 of them none
  EXPECT_EQ(PackedSize<float>(shape), 10 * 80);
  EXPECT_EQ(PanelWidth<float>(shape, 0), 48);
  EXPECT_EQ(PanelWidth<float>(shape, 48), 32);
  EXPECT_EQ(PackedIndex<float>(shape, 0, 47), 47);
  EXPECT_EQ(PackedIndex<float>(shape, 1, 0), 48);
  EXPECT_EQ(PackedIndex<float>(shape, 0, 48), 480);
  EXPECT_EQ(PackedIndex<float>(shape, 3, 69), 480 + 3 * 32 + 21);
  EXPECT_EQ(PackedIndex<double>(shape, 1, 23), 24 + 23);
  EXPECT_EQ(PackedIndex<double>(shape, 1, 24), 240 + 24);
}

}  // namespace
}  // namespace fisherd::kernels
