#include "fisherd/linear_operator_diag.h"

#include <gtest/gtest.h>

namespace fisherd {
namespace {

template <typename Scalar>
class LinearOperatorDiagTest : public testing::Test {
 protected:
  // Weight [[1, 2], [3, 4], [5, 6]], bias [7, 8].
  LinearOperatorDiag<Scalar> op_{3, 2, 2, Vector<Scalar>::LinSpaced(8, 1, 8)};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LinearOperatorDiagTest, Scalars);

TYPED_TEST(LinearOperatorDiagTest, HasTheParametersShape) {
  EXPECT_EQ(this->op_.shape(), (std::pair<int64_t, int64_t>{8, 8}));
  EXPECT_EQ(this->op_.diag_part().size(), 8);
}

TYPED_TEST(LinearOperatorDiagTest, WeightAndBiasAreViewsOfTheDiagonal) {
  EXPECT_EQ(this->op_.weight().rows(), 3);
  EXPECT_EQ(this->op_.weight()(1, 0), 3);
  EXPECT_TRUE(this->op_.has_bias());
  EXPECT_EQ(this->op_.bias()(1), 8);
  EXPECT_EQ(this->op_.weight().data(), this->op_.diag_part().data());
}

TYPED_TEST(LinearOperatorDiagTest, MatmulIsTheDenseProductAndSolveItsInverse) {
  const Matrix<TypeParam> x = Matrix<TypeParam>::Random(8, 3);
  const Matrix<TypeParam> y = this->op_.matmul(x);
  EXPECT_TRUE(y.isApprox(this->op_.to_dense() * x));
  EXPECT_FALSE(y.isApprox(x));
  EXPECT_TRUE(Matrix<TypeParam>(this->op_.solve(y)).isApprox(x));
  const Vector<TypeParam> ones = Vector<TypeParam>::Ones(8);
  EXPECT_EQ(Vector<TypeParam>(this->op_.matmul(ones)), this->op_.diag_part());
}

TYPED_TEST(LinearOperatorDiagTest, WithoutABias) {
  const LinearOperatorDiag<TypeParam> op(2, 2, 0, Vector<TypeParam>::Ones(4));
  EXPECT_FALSE(op.has_bias());
  EXPECT_EQ(op.bias().size(), 0);
  EXPECT_EQ(LinearOperatorDiag<TypeParam>().shape(), (std::pair<int64_t, int64_t>{0, 0}));
}

}  // namespace
}  // namespace fisherd
