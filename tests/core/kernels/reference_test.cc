// The reference against SPEC §7, which was computed independently of it.

#include "core/kernels/reference.h"

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

const reference::Dense kA = DenseOf(2, 2, {1, 2, 3, 4});
const reference::Dense kG = DenseOf(2, 2, {1, -1, 2, 0.5});

TEST(ReferenceTest, Covariance) {
  const reference::Tower tower{.inputs = kA, .outputs_grads = {kG}};
  ExpectNear(reference::Covariance({tower}, true, false).values, {18.5, 1.625, 34, 4, 2.5, 0.625},
             1e-15);
  ExpectNear(reference::Covariance({tower}, false, true).values, {18.5, 1.625, 34, 4}, 1e-15);
}

TEST(ReferenceTest, RowWeightsAndScale) {
  const reference::Tower tower{
      .inputs = kA, .outputs_grads = {kG}, .gradient_scale = 2, .row_weights = {1, 3}};
  ExpectNear(reference::Covariance({tower}, true, false).values,
             {4 * 27.25, 4 * 1.9375, 4 * 49, 4 * 4, 4 * 3.25, 4 * .4375}, 1e-15);
}

TEST(ReferenceTest, MovingAverage) {
  const auto c = reference::Covariance({{.inputs = kA, .outputs_grads = {kG}}}, true, false);
  reference::Dense twice_a = kA;
  for (double& a : twice_a.values) a *= 2;
  const auto c2 = reference::Covariance({{.inputs = twice_a, .outputs_grads = {kG}}}, true, false);
  reference::MovingAverage average{.var = reference::Dense(3, 2)};
  average.Step(.5, .5, c);
  average.Step(.9, .1, c2);
  EXPECT_DOUBLE_EQ(average.total_weight, 0.55);
  ExpectNear(average.Debiased().values,
             {28.59090909, 2.51136364, 52.54545455, 6.18181818, 2.5, 0.625}, 1e-8);
}

TEST(ReferenceTest, Reads) {
  const reference::Dense v = DenseOf(1, 2, {18.5, 1.625});
  ExpectNear(reference::Matpower(v, -1, .5).values, {.05263158, .47058824}, 1e-7);
  ExpectNear(reference::Multiply(v, DenseOf(1, 2, {2, -1})).values, {37, -1.625}, 1e-15);
}

}  // namespace
}  // namespace fisherd::core
