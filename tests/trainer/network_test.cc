#include "client/trainer/network.h"

#include <array>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

constexpr int kWidths[] = {5, 7, 4, 3};

Examples SomeExamples() {
  Random random({1});
  Examples examples;
  examples.inputs.resize(6, 5);
  for (float& input : examples.inputs.reshaped()) input = static_cast<float>(random.Normal());
  examples.labels = {0, 1, 2, 2, 1, 0};
  return examples;
}

TEST(NetworkTest, InitialParametersAreAsWideAsTheLayers) {
  const int widths[] = {400, 300, 10};
  const Layers parameters = InitialParameters(widths, Random({1}));
  ASSERT_EQ(parameters.size(), 2);
  EXPECT_EQ(parameters[0].rows(), 401);
  EXPECT_EQ(parameters[0].cols(), 300);
  EXPECT_TRUE(parameters[0].row(400).isZero());
  EXPECT_NEAR(parameters[0].squaredNorm() / 300, 1, 0.02);
  EXPECT_EQ(Checksum(parameters), Checksum(InitialParameters(widths, Random({1}))));
  EXPECT_NE(Checksum(parameters), Checksum(InitialParameters(widths, Random({2}))));
}

TEST(NetworkTest, ForwardByHand) {
  Layers parameters(2);
  parameters[0].resize(2, 1);
  parameters[0] << 2, -1;  // tanh(2x − 1)
  parameters[1].resize(2, 2);
  parameters[1] << 3, 4, 0.5, -0.5;
  const ForwardPass pass = Forward(parameters, Matrix::Constant(1, 1, 0.75f));
  const float hidden = std::tanh(0.5f);
  EXPECT_NEAR(pass.inputs[1](0, 0), hidden, 1e-6);
  EXPECT_NEAR(pass.logits(0, 0), 3 * hidden + 0.5, 1e-6);
  EXPECT_NEAR(pass.logits(0, 1), 4 * hidden - 0.5, 1e-6);
}

TEST(NetworkTest, SoftmaxOfLargeLogitsIsFinite) {
  Matrix logits(2, 2);
  logits << 1000, 1000 + std::log(3.0f), -1000, 1000;
  const Matrix probabilities = Softmax(logits);
  EXPECT_NEAR(probabilities(0, 0), 0.25, 1e-4);
  EXPECT_NEAR(probabilities(0, 1), 0.75, 1e-4);
  EXPECT_EQ(probabilities(1, 0), 0);
  EXPECT_EQ(probabilities(1, 1), 1);
}

TEST(NetworkTest, SampledLabelsFollowTheProbabilities) {
  Matrix probabilities(20000, 3);
  probabilities.rowwise() = Eigen::RowVector3f(0.2f, 0, 0.8f);
  std::array<int, 3> counts = {};
  for (int label : SampleLabels(probabilities, Random({4}))) ++counts[label];
  EXPECT_NEAR(counts[0], 4000, 250);
  EXPECT_EQ(counts[1], 0);
}

TEST(NetworkTest, GradientsAreFiniteDifferencesOfTheMeanLoss) {
  const Examples examples = SomeExamples();
  Layers parameters = InitialParameters(kWidths, Random({2}));
  for (Matrix& matrix : parameters) matrix.bottomRows<1>().setConstant(0.1f);
  const ForwardPass pass = Forward(parameters, examples.inputs);
  const Layers gradients = ParameterGradients(
      pass.inputs, OutputsGradients(parameters, pass, Softmax(pass.logits), examples.labels), 6);
  constexpr float kStep = 1e-2f;
  for (size_t layer = 0; layer < parameters.size(); ++layer) {
    for (int i = 0; i < parameters[layer].rows(); ++i) {
      for (int o = 0; o < parameters[layer].cols(); ++o) {
        float& parameter = parameters[layer](i, o);
        const float before = parameter;
        parameter = before + kStep;
        const double above = Evaluate(parameters, examples).loss;
        parameter = before - kStep;
        const double below = Evaluate(parameters, examples).loss;
        parameter = before;
        EXPECT_NEAR(gradients[layer](i, o), (above - below) / (2 * kStep), 2e-4)
            << "layer " << layer << " [" << i << ", " << o << "]";
      }
    }
  }
}

TEST(NetworkTest, OutputsGradientsAreThoseOfSingleExamples) {
  const Examples examples = SomeExamples();
  const Layers parameters = InitialParameters(kWidths, Random({2}));
  const ForwardPass pass = Forward(parameters, examples.inputs);
  const Layers together = OutputsGradients(parameters, pass, Softmax(pass.logits), examples.labels);
  for (int row = 0; row < examples.size(); ++row) {
    const ForwardPass single = Forward(parameters, examples.inputs.row(row));
    const Layers alone = OutputsGradients(parameters, single, Softmax(single.logits),
                                          std::array{examples.labels[row]});
    for (size_t layer = 0; layer < parameters.size(); ++layer) {
      EXPECT_TRUE(together[layer].row(row).isApprox(alone[layer], 1e-5f)) << layer;
    }
  }
}

TEST(NetworkTest, EvaluateByHand) {
  Layers parameters(1);
  parameters[0] = Matrix::Zero(2, 2);
  parameters[0](1, 1) = std::log(3.0f);  // probabilities ¼ and ¾, whatever the input
  const Examples examples = {.inputs = Matrix::Zero(4, 1), .labels = {1, 1, 1, 0}};
  const Evaluation evaluation = Evaluate(parameters, examples);
  EXPECT_DOUBLE_EQ(evaluation.accuracy, 0.75);
  EXPECT_NEAR(evaluation.loss, -(3 * std::log(0.75) + std::log(0.25)) / 4, 1e-6);
}

TEST(NetworkTest, ChecksumSeesOneBit) {
  Layers layers = {Matrix::Zero(2, 2), Matrix::Zero(1, 2)};
  const uint64_t before = Checksum(layers);
  layers[1](0, 1) = -0.0f;
  EXPECT_NE(Checksum(layers), before);
}

}  // namespace
}  // namespace fisherd::trainer
