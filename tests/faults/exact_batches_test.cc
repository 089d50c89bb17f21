#include "tests/faults/exact_batches.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fisherd::faults {
namespace {

TEST(ExactBatchesTest, ABatchIsAFunctionOfItsIdentity) {
  const Layer layer;
  const ExactBatch batch = MakeBatch(layer, "f", 3, 1);
  EXPECT_EQ(MakeBatch(layer, "f", 3, 1).inputs, batch.inputs);
  EXPECT_EQ(MakeBatch(layer, "f", 3, 1).grads, batch.grads);
  EXPECT_NE(MakeBatch(layer, "f", 3, 0).inputs, batch.inputs);
  EXPECT_NE(MakeBatch(layer, "f", 4, 1).inputs, batch.inputs);
  EXPECT_NE(MakeBatch(layer, "g", 3, 1).inputs, batch.inputs);
}

TEST(ExactBatchesTest, AStepIsTheSumOverItsExamples) {
  const Layer layer = {.inputs = 2, .outputs = 1, .rows = {2, 6, 2, 6}};
  const ExactBatch one = MakeBatch(layer, "f", 1, 0);
  const ExactBatch other = MakeBatch(layer, "f", 1, 1);
  double of_one = 0, of_other = 0;
  for (int row = 0; row < 2; ++row) of_one += std::pow(one.inputs(row, 1) * one.grads(row, 0), 2);
  for (int row = 0; row < 6; ++row) {
    of_other += std::pow(other.inputs(row, 1) * other.grads(row, 0), 2);
  }
  EXPECT_EQ(StepSum(layer, "f", 1, {0})(1, 0), of_one / 2);
  EXPECT_NEAR(StepSum(layer, "f", 1, {0, 1})(1, 0), (of_one / 2 + of_other / 6) / 2, 1e-12);
  EXPECT_EQ(StepSum(layer, "f", 1, {0, 1}, v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED)(1, 0),
            (of_one + of_other) / 8);
  EXPECT_EQ(StepSum(layer, "f", 1, {})(1, 0), 0);
  EXPECT_EQ(StepSum(layer, "f", 1, {0})(2, 0), one.grads.squaredNorm() / 2);
}

TEST(ExactBatchesTest, SumsAreThoseOfTheStepsBefore) {
  const Layer layer;
  const auto sums = Sums(layer, "f", {{0, 1}, {}, {1}});
  ASSERT_EQ(sums.size(), 4);
  EXPECT_EQ(sums[0].sum(), 0);
  EXPECT_EQ(sums[1], StepSum(layer, "f", 1, {0, 1}));
  EXPECT_EQ(sums[2], sums[1]);
  EXPECT_EQ(sums[3], sums[1] + StepSum(layer, "f", 3, {1}));
  EXPECT_EQ(WholeSums(layer, "f", 1, 2)[1], sums[1]);
}

}  // namespace
}  // namespace fisherd::faults
