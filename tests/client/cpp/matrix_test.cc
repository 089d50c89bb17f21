#include "fisherd/matrix.h"

#include <gtest/gtest.h>

#include <cstring>

namespace fisherd {
namespace {

template <typename Scalar>
Scalar At(const MatrixView& view, int64_t row, int64_t col) {
  Scalar value;
  std::memcpy(&value, view.row(row).data() + col * sizeof(Scalar), sizeof value);
  return value;
}

TEST(MatrixViewTest, AbsentByDefault) {
  EXPECT_FALSE(MatrixView().present());
  EXPECT_EQ(MatrixView().rows(), 0);
}

TEST(MatrixViewTest, ViewsAWholeMatrix) {
  const Matrix<float> m = Matrix<float>::Random(3, 4);
  const MatrixView view = m;
  EXPECT_TRUE(view.present());
  EXPECT_EQ(view.dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(view.rows(), 3);
  EXPECT_EQ(view.cols(), 4);
  EXPECT_TRUE(view.contiguous());
  EXPECT_EQ(view.rows(1, 2).size(), 2 * 4 * sizeof(float));
  EXPECT_EQ(At<float>(view, 2, 3), m(2, 3));
}

TEST(MatrixViewTest, ViewsBlocksByTheirStride) {
  const Matrix<double> m = Matrix<double>::Random(5, 6);
  const MatrixView rows = m.middleRows(1, 3);
  EXPECT_TRUE(rows.contiguous());
  EXPECT_EQ(At<double>(rows, 2, 5), m(3, 5));
  const MatrixView cols = m.middleCols(2, 3);
  EXPECT_EQ(cols.dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_FALSE(cols.contiguous());
  EXPECT_EQ(cols.row(4).size(), 3 * sizeof(double));
  EXPECT_EQ(At<double>(cols, 4, 1), m(4, 3));
}

TEST(MatrixViewTest, ViewsVectorsAsColumns) {
  const Vector<float> v = Vector<float>::Random(4);
  const MatrixView view = v;
  EXPECT_EQ(view.rows(), 4);
  EXPECT_EQ(view.cols(), 1);
  EXPECT_TRUE(view.contiguous());
  EXPECT_EQ(At<float>(view, 3, 0), v(3));
}

// What could only be viewed wrongly does not compile.
static_assert(ContiguousRows<Matrix<float>>);
static_assert(ContiguousRows<Eigen::Map<const Matrix<double>>>);
static_assert(!ContiguousRows<Eigen::MatrixXf>, "column-major");
static_assert(!ContiguousRows<Matrix<int>>);
static_assert(!ContiguousRows<decltype(2.f * Matrix<float>())>, "an expression has no memory");

}  // namespace
}  // namespace fisherd
