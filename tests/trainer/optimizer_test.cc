#include "client/trainer/optimizer.h"

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

Layers One(float value) { return {Matrix::Constant(1, 1, value)}; }

TEST(SgdTest, StepsDownTheGradient) {
  Layers parameters = {Matrix::Constant(2, 1, 1), Matrix::Constant(1, 3, 2)};
  Sgd sgd(0.5, 0);
  for (int i = 0; i < 2; ++i) sgd.Step({Matrix::Constant(2, 1, 2), Matrix::Zero(1, 3)}, parameters);
  EXPECT_TRUE((parameters[0].array() == -1).all());
  EXPECT_TRUE((parameters[1].array() == 2).all());
}

TEST(SgdTest, MomentumByHand) {
  Layers parameters = One(0);
  Sgd sgd(0.1, 0.5);
  sgd.Step(One(1), parameters);  // velocity 1
  EXPECT_NEAR(parameters[0](0, 0), -0.1, 1e-7);
  sgd.Step(One(2), parameters);  // velocity 2.5
  EXPECT_NEAR(parameters[0](0, 0), -0.35, 1e-7);
  sgd.Step(One(0), parameters);  // velocity 1.25
  EXPECT_NEAR(parameters[0](0, 0), -0.475, 1e-7);
}

TEST(AdamTest, ByHand) {
  Layers parameters = One(1);
  Adam adam(0.1);
  // mean 0.2, debiased 2; square 0.004, debiased 4
  adam.Step(One(2), parameters);
  EXPECT_NEAR(parameters[0](0, 0), 0.9, 1e-6);
  // mean 0.9·0.2 − 0.1 = 0.08, debiased 0.08/0.19 = 0.42105263
  // square 0.999·0.004 + 0.001 = 0.004996, debiased 0.004996/0.001999 = 2.49924962
  adam.Step(One(-1), parameters);
  EXPECT_NEAR(parameters[0](0, 0), 0.9 - 0.1 * 0.42105263 / 1.58090152, 1e-6);
}

TEST(AdamTest, IgnoresTheGradientsScale) {
  Layers small = One(0), large = One(0);
  Adam first(0.01), second(0.01);
  for (int i = 0; i < 5; ++i) {
    first.Step(One(1e-3f), small);
    second.Step(One(1e3f), large);
  }
  EXPECT_NEAR(small[0](0, 0), large[0](0, 0), 1e-5);
  EXPECT_NEAR(small[0](0, 0), -0.05, 1e-5);
}

}  // namespace
}  // namespace fisherd::trainer
