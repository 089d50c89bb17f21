#include "client/trainer/random.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

TEST(RandomTest, SamePartsSameSequence) {
  Random first({1, 2}), same({1, 2}), other({1, 3});
  bool differs = false;
  for (int i = 0; i < 10; ++i) {
    const double number = first.Uniform();
    EXPECT_EQ(number, same.Uniform());
    differs |= number != other.Uniform();
  }
  EXPECT_TRUE(differs);
}

TEST(RandomTest, MomentsAreThoseOfTheDistributions) {
  constexpr int kCount = 100000;
  Random random({7});
  double uniform = 0, normal = 0, square = 0;
  for (int i = 0; i < kCount; ++i) {
    const double number = random.Uniform();
    ASSERT_GE(number, 0);
    ASSERT_LT(number, 1);
    uniform += number / kCount;
    const double other = random.Normal();
    normal += other / kCount;
    square += other * other / kCount;
  }
  EXPECT_NEAR(uniform, 0.5, 0.005);
  EXPECT_NEAR(normal, 0, 0.02);
  EXPECT_NEAR(square, 1, 0.03);
}

TEST(RandomTest, PermutationHoldsEveryNumberOnce) {
  std::vector<int> numbers = Random({3}).Permutation(100);
  EXPECT_FALSE(std::is_sorted(numbers.begin(), numbers.end()));
  std::sort(numbers.begin(), numbers.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(numbers[i], i);
}

}  // namespace
}  // namespace fisherd::trainer
