#include "client/trainer/fisher_check.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

// The golden values of the service's specification: A, G and what they make.
Matrix A() { return Matrix{{1, 2}, {3, 4}}; }
Matrix G() { return Matrix{{1, -1}, {2, 0.5}}; }
MatrixXd C() { return MatrixXd{{18.5, 1.625}, {34, 4}, {2.5, 0.625}}; }

TEST(ExactFisherTest, GoldenStep) {
  const Matrix a = A(), g = G();
  ExactFisher fisher(2, 2, 0.9);
  fisher.Add({{{a, g}}});
  EXPECT_TRUE(fisher.Value().isApprox(C(), 1e-14)) << fisher.Value();
}

TEST(ExactFisherTest, GoldenAverage) {
  const Matrix a = A(), twice = 2 * A(), g = G();
  ExactFisher fisher(2, 2, 0.9);
  fisher.Add({{{a, g}}});
  fisher.Add({{{twice, g}}});
  const MatrixXd expected{{47.71052632, 4.19078947}, {87.68421053, 10.31578947}, {2.5, 0.625}};
  EXPECT_TRUE(fisher.Value().isApprox(expected, 1e-9)) << fisher.Value();
}

TEST(ExactFisherTest, TowersAreAveraged) {
  const Matrix a = A(), g = G();
  const Matrix a0 = a.topRows(1), a1 = a.bottomRows(1), g0 = g.topRows(1), g1 = g.bottomRows(1);
  ExactFisher halves(2, 2, 0.9);
  halves.Add({{{a0, g0}, {a1, g1}}});
  EXPECT_TRUE(halves.Value().isApprox(C(), 1e-14)) << halves.Value();
}

TEST(ExactFisherTest, BatchMeanShareByHand) {
  const Matrix a = A(), g = G();
  ExactFisher fisher(2, 2, 0.5);
  fisher.Add({{{a, g}}});
  // Mean gradients {3.5, 0.25, 5, 0, 1.5, −0.25}; their squares, 12.25 and so on, against C's sum.
  EXPECT_NEAR(fisher.BatchMeanShare(), (12.25 + 0.0625 + 25 + 0 + 2.25 + 0.0625) / 61.25, 1e-14);
}

TEST(CompareTest, LargestRelativeDifference) {
  MatrixXd served = C();
  EXPECT_EQ(Compare(served, C(), {}).largest_difference, 0);
  served(1, 0) *= 1 + 1e-4;
  served(2, 1) *= 1 - 3e-4;
  EXPECT_NEAR(Compare(served, C(), {}).largest_difference, 3e-4, 1e-12);
}

TEST(CompareTest, WhatCannotBeComparedIsInfinite) {
  MatrixXd exact = C(), served = C();
  exact(0, 0) = 0;
  EXPECT_EQ(Compare(served, exact, {}).largest_difference, std::numeric_limits<double>::infinity());
  served(0, 0) = 0;
  EXPECT_EQ(Compare(served, exact, {}).largest_difference, 0);
  served(1, 1) = std::nan("");
  EXPECT_EQ(Compare(served, exact, {}).largest_difference, std::numeric_limits<double>::infinity());
}

TEST(CompareTest, DarkRowsMustBeZeroOnBothSides) {
  const std::vector<int> dark = {0, 2};
  MatrixXd exact = C(), served = C();
  for (int row : dark) {
    served.row(row).setZero();
    exact.row(row).setZero();
  }
  EXPECT_EQ(Compare(served, exact, dark).dark_entries, 4);
  EXPECT_EQ(Compare(served, exact, dark).dark_not_zero, 0);
  served(0, 1) = 1e-300;
  exact(2, 0) = 1e-300;
  EXPECT_EQ(Compare(served, exact, dark).dark_not_zero, 2);
}

}  // namespace
}  // namespace fisherd::trainer
