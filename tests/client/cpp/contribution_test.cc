#include "client/cpp/contribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fisherd/status.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

const BatchIdentity kIdentity = {.factor = "f", .incarnation = 7, .step = 3, .tower = 1};

// Σ_s C(s,t) of SPEC §1 as plainly as it can be written.
Matrix<double> Expected(const Matrix<double>& a, const std::vector<Matrix<double>>& grads,
                        const Vector<double>& weights, bool has_bias, double scale) {
  Matrix<double> c = Matrix<double>::Zero(a.cols() + has_bias, grads[0].cols());
  for (const Matrix<double>& g : grads) {
    for (int64_t n = 0; n < a.rows(); ++n) {
      for (int64_t i = 0; i < c.rows(); ++i) {
        const double in = i < a.cols() ? a(n, i) : 1;
        for (int64_t o = 0; o < c.cols(); ++o) {
          c(i, o) += weights(n) * in * in * scale * g(n, o) * scale * g(n, o);
        }
      }
    }
  }
  return c / weights.sum();
}

template <typename Actual>
void ExpectClose(const Actual& actual, const Matrix<double>& expected, double tolerance) {
  ASSERT_EQ(actual.rows(), expected.rows());
  ASSERT_EQ(actual.cols(), expected.cols());
  for (int64_t k = 0; k < expected.size(); ++k) {
    EXPECT_NEAR(actual.data()[k], expected.data()[k], tolerance * expected.data()[k]) << k;
  }
}

struct Layer {
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
  int sources;
  bool has_bias;
};

class ContributionTest : public testing::TestWithParam<Layer> {
 protected:
  LayerShape shape(v1::DataType dtype) const {
    return {.input_size = layer_.inputs,
            .output_size = layer_.outputs,
            .has_bias = layer_.has_bias,
            .sources = layer_.sources,
            .dtype = dtype};
  }

  const Layer layer_ = GetParam();
  const Matrix<double> a_ = Matrix<float>::Random(layer_.rows, layer_.inputs).cast<double>();
  const std::vector<Matrix<double>> g_ = [this] {
    std::vector<Matrix<double>> grads;
    for (int s = 0; s < layer_.sources; ++s) {
      grads.push_back(Matrix<float>::Random(layer_.rows, layer_.outputs).cast<double>());
    }
    return grads;
  }();
};

TEST_P(ContributionTest, IsTheCovarianceOfTheBatch) {
  const Vector<double> ones = Vector<double>::Ones(layer_.rows);
  const Matrix<double> expected = Expected(a_, g_, ones, layer_.has_bias, 1);
  const std::vector<MatrixView> grads(g_.begin(), g_.end());
  const Batch batch = {.inputs = a_, .outputs_grads = grads};

  const LayerShape wide = shape(v1::DATA_TYPE_FLOAT64);
  ASSERT_TRUE(Fits(batch, wide));
  const auto doubles = MakeContribution(kIdentity, batch, wide, 1);
  ASSERT_TRUE(doubles.ok()) << doubles.status();
  EXPECT_EQ(doubles->view().dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_EQ(doubles->examples, std::nullopt);
  ExpectClose(doubles->of_doubles, expected, 1e-13);

  const Matrix<float> narrow = a_.cast<float>();
  const auto floats = MakeContribution(kIdentity, {.inputs = narrow, .outputs_grads = grads},
                                       shape(v1::DATA_TYPE_FLOAT32), 1);
  ASSERT_TRUE(floats.ok()) << floats.status();
  EXPECT_EQ(floats->view().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(floats->view().rows() * floats->view().row_bytes(),
            shape(v1::DATA_TYPE_FLOAT32).bytes());
  ExpectClose(floats->of_floats, expected, 1e-4);
}

TEST_P(ContributionTest, WeightsRowsAndScalesGradients) {
  Vector<double> weights = Vector<double>::LinSpaced(layer_.rows, 0, 3);
  weights(layer_.rows - 1) = 2.5;
  const Matrix<double> expected = Expected(a_, g_, weights, layer_.has_bias, 64);
  const Batch batch = {.inputs = a_,
                       .outputs_grads = std::vector<MatrixView>(g_.begin(), g_.end()),
                       .row_weights = weights};
  const auto made = MakeContribution(kIdentity, batch, shape(v1::DATA_TYPE_FLOAT64), 64);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_NEAR(*made->examples, weights.sum(), 1e-12);
  ExpectClose(made->of_doubles, expected, 1e-13);
}

INSTANTIATE_TEST_SUITE_P(Layers, ContributionTest,
                         testing::Values(Layer{1, 1, 1, 1, false}, Layer{2, 2, 2, 1, true},
                                         Layer{7, 3, 2, 3, true}, Layer{300, 17, 50, 2, true},
                                         Layer{600, 70, 210, 1, false}));

TEST(ContributionGoldenTest, IsThatOfTheSpecification) {
  Matrix<float> a(2, 2), g(2, 2);
  a << 1, 2, 3, 4;
  g << 1, -1, 2, 0.5;
  const LayerShape shape = {.input_size = 2, .output_size = 2, .has_bias = true};
  const auto made = MakeContribution(kIdentity, {.inputs = a, .outputs_grads = {g}}, shape, 1);
  ASSERT_TRUE(made.ok()) << made.status();
  Matrix<float> c(3, 2);
  c << 18.5, 1.625, 34, 4, 2.5, 0.625;
  EXPECT_EQ(made->of_floats, c);
}

TEST(ContributionLayoutTest, StridedRowsAreReadWithoutTheirGaps) {
  const Matrix<float> wide = Matrix<float>::Random(9, 11);
  const Matrix<float> a = wide.middleCols(2, 3), g = wide.rightCols(2);
  const LayerShape shape = {.input_size = 3, .output_size = 2};
  const auto packed = MakeContribution(kIdentity, {.inputs = a, .outputs_grads = {g}}, shape, 1);
  const auto strided = MakeContribution(
      kIdentity, {.inputs = wide.middleCols(2, 3), .outputs_grads = {wide.rightCols(2)}}, shape, 1);
  EXPECT_EQ(packed->of_floats, strided->of_floats);
}

class ContributionErrorTest : public testing::Test {
 protected:
  absl::Status Make(const Matrix<double>& a, const Matrix<double>& g,
                    const Vector<double>& weights = Vector<double>::Ones(3), double scale = 1) {
    return MakeContribution(kIdentity, {.inputs = a, .outputs_grads = {g}, .row_weights = weights},
                            {.input_size = 2, .output_size = 4}, scale)
        .status();
  }
  void Expect(const absl::Status& status, const char* reason, const char* field,
              const char* message) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), reason);
    EXPECT_EQ(ErrorMetadata(status)["field"], field);
    EXPECT_THAT(std::string(status.message()), HasSubstr("factor \"f\", tower 1, step 3: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }

  Matrix<double> a_ = Matrix<double>::Ones(3, 2);
  Matrix<double> g_ = Matrix<double>::Ones(3, 4);
  Vector<double> w_ = Vector<double>::Ones(3);
};

TEST_F(ContributionErrorTest, NamesTheElementThatIsNotFinite) {
  EXPECT_TRUE(Make(a_, g_).ok());
  a_(2, 1) = std::numeric_limits<double>::quiet_NaN();
  Expect(Make(a_, g_), "NON_FINITE_INPUT", "inputs", "inputs, row 2, column 1 is nan");
  a_(2, 1) = 1;
  g_(1, 3) = -std::numeric_limits<double>::infinity();
  Expect(Make(a_, g_), "NON_FINITE_INPUT", "outputs_grads[0]", "row 1, column 3 is -inf");
  g_(1, 3) = 1e20;
  Expect(Make(a_, g_), "NON_FINITE_INPUT", "outputs_grads[0]", "1e+20, whose square overflows");
  g_(1, 3) = 1e15;
  EXPECT_TRUE(Make(a_, g_).ok());
  Expect(Make(a_, g_, w_, 1e9), "NON_FINITE_INPUT", "outputs_grads[0]", "whose square overflows");
  a_.setConstant(1e15);
  Expect(Make(a_, g_), "NON_FINITE_INPUT", "inputs", "products of the squares");
}

TEST_F(ContributionErrorTest, NamesTheWeightThatIsWrong) {
  w_(1) = -1;
  Expect(Make(a_, g_, w_), "BAD_ARGUMENT", "row_weights", "row 1 is -1");
  w_(1) = std::numeric_limits<double>::infinity();
  Expect(Make(a_, g_, w_), "NON_FINITE_INPUT", "row_weights", "row 1 is inf");
  w_(1) = 1e39;
  Expect(Make(a_, g_, w_), "NON_FINITE_INPUT", "row_weights", "makes a squared gradient overflow");
  Expect(Make(a_, g_, Vector<double>::Zero(3)), "BAD_ARGUMENT", "row_weights", "sum to 0");
}

TEST(LayerShapeTest, OnlyABatchOfTheLayerFits) {
  v1::FactorSpec spec;
  EXPECT_EQ(LayerShapeOf(spec), std::nullopt);
  spec.mutable_fully_connected_diagonal()->set_input_size(3);
  spec.mutable_fully_connected_diagonal()->set_output_size(2);
  spec.mutable_fully_connected_diagonal()->set_has_bias(true);
  spec.set_dtype(v1::DATA_TYPE_FLOAT64);
  const LayerShape shape = *LayerShapeOf(spec);
  EXPECT_EQ(shape.rows(), 4);
  EXPECT_EQ(shape.bytes(), 4 * 2 * 8);
  EXPECT_EQ(shape.sources, 1);
  const Matrix<float> a(5, 3), g(5, 2);
  EXPECT_TRUE(Fits({.inputs = a, .outputs_grads = {g}}, shape));
  EXPECT_FALSE(Fits({.inputs = a, .outputs_grads = {g, g}}, shape));
  EXPECT_FALSE(Fits({.inputs = g, .outputs_grads = {g}}, shape));
  EXPECT_FALSE(Fits({.inputs = a, .outputs_grads = {a}}, shape));
  EXPECT_FALSE(Fits({.inputs = a, .outputs_grads = {MatrixView()}}, shape));
  EXPECT_FALSE(Fits({.outputs_grads = {g}}, shape));
}

}  // namespace
}  // namespace fisherd
