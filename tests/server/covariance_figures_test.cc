#include "server/covariance_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<core::Matrix> Make(int64_t rows, int64_t cols, core::DataType dtype,
                                   double (*value)(int64_t row, int64_t col)) {
  auto matrix = core::Matrix::New({rows, cols, dtype});
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      if (dtype == core::DataType::kFloat64) {
        matrix->elements<double>()[row * cols + col] = value(row, col);
      } else {
        matrix->elements<float>()[row * cols + col] = static_cast<float>(value(row, col));
      }
    }
  }
  return matrix;
}

// Against the mean of each cell's entries, one by one.
TEST(CovarianceSketchTest, EveryCellIsTheMeanOfItsEntries) {
  const auto value = [](int64_t row, int64_t col) { return static_cast<double>(row * 1000 + col); };
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 130}, {64, 65}, {100, 7}}) {
    const auto matrix = Make(rows, cols, core::DataType::kFloat64, value);
    const CovarianceSketch sketch(*matrix, 2);
    EXPECT_EQ(sketch.rows, std::min<int64_t>(rows, 64));
    EXPECT_EQ(sketch.cols, std::min<int64_t>(cols, 64));
    EXPECT_EQ(sketch.looked, rows * cols);
    for (int64_t r = 0; r < sketch.rows; ++r) {
      for (int64_t c = 0; c < sketch.cols; ++c) {
        double sum = 0;
        int count = 0;
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t col = 0; col < cols; ++col) {
            if (row * sketch.rows / rows != r || col * sketch.cols / cols != c) continue;
            sum += value(row, col) / 2;
            ++count;
          }
        }
        ASSERT_DOUBLE_EQ(sketch.cells[r * sketch.cols + c], sum / count) << r << " " << c;
      }
    }
  }
}

TEST(CovarianceSketchTest, ALargeOneIsLookedAtInPart) {
  auto matrix = core::Matrix::New({5000, 3000, core::DataType::kFloat32});
  EXPECT_EQ(matrix->Fill(0.5), absl::OkStatus());
  const CovarianceSketch sketch(*matrix, 1);
  EXPECT_LE(sketch.looked, CovarianceSketch::kMostLooked);
  EXPECT_GE(sketch.looked, CovarianceSketch::kMostLooked / 2);
  EXPECT_TRUE(std::all_of(sketch.cells.begin(), sketch.cells.end(),
                          [](double cell) { return cell == 0.5; }));
  EXPECT_EQ(sketch.mean, 0.5);
}

TEST(CovarianceSketchTest, AThinOneIsLookedAtInPartToo) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 4'000'000},
                                   {4'000'000, 1},
                                   {3, 1'000'000},
                                   {1'000'000, 3},
                                   {100, 30'000}}) {
    auto matrix = core::Matrix::New({rows, cols, core::DataType::kFloat32});
    EXPECT_EQ(matrix->Fill(0.5), absl::OkStatus());
    const CovarianceSketch sketch(*matrix, 1);
    EXPECT_LE(sketch.looked, CovarianceSketch::kMostLooked) << rows << " " << cols;
    EXPECT_GE(sketch.looked, CovarianceSketch::kMostLooked / 2) << rows << " " << cols;
    EXPECT_TRUE(std::all_of(sketch.cells.begin(), sketch.cells.end(),
                            [](double cell) { return cell == 0.5; }));
  }
}

TEST(CovarianceSketchTest, CountsByPowersOfTen) {
  const auto matrix = Make(1, 6, core::DataType::kFloat64, [](int64_t, int64_t col) {
    const double values[] = {0, 0, 1, 9.99, 1e-300, 1e300};
    return values[col];
  });
  const CovarianceSketch sketch(*matrix, 1);
  EXPECT_EQ(sketch.zeros, 2);
  EXPECT_EQ(sketch.decades[-CovarianceSketch::kLeastDecade], 2);
  EXPECT_EQ(sketch.decades.front(), 1);
  EXPECT_EQ(sketch.decades.back(), 1);
  EXPECT_EQ(sketch.least, 1e-300);
  EXPECT_EQ(sketch.most, 1e300);
}

TEST(CovarianceSketchTest, PowersOfTenBeginWhereTheyDo) {
  for (int decade = -19; decade < 19; ++decade) {
    const double power = std::pow(10.0, decade);
    for (const double value : {power, std::nextafter(std::pow(10.0, decade + 1), 0.0)}) {
      auto matrix = core::Matrix::New({1, 1, core::DataType::kFloat64});
      EXPECT_EQ(matrix->Fill(value), absl::OkStatus());
      const CovarianceSketch sketch(*matrix, 1);
      EXPECT_EQ(sketch.decades[decade - CovarianceSketch::kLeastDecade], 1) << value;
    }
  }
}

// What overflows when it is divided or summed up is the largest number.
TEST(CovarianceFiguresTest, AreDrawnOfTheLargestAndTheSmallest) {
  for (const double fill : {1.7e308, 5e-324}) {
    auto matrix = core::Matrix::New({200, 200, core::DataType::kFloat64});
    EXPECT_EQ(matrix->Fill(fill), absl::OkStatus());
    for (const double divisor : {1.0, 0.125}) {
      const CovarianceSketch sketch(*matrix, divisor);
      EXPECT_TRUE(std::isfinite(sketch.most));
      EXPECT_TRUE(std::isfinite(sketch.mean));
      for (const std::string& figure : {HeatMap(sketch), Histogram(sketch)}) {
        EXPECT_EQ(figure.find("nan"), std::string::npos);
        EXPECT_EQ(figure.find("inf"), std::string::npos);
      }
    }
  }
}

TEST(CovarianceFiguresTest, AreDrawnOfWhateverThereIs) {
  for (const double fill : {0.0, 1.0}) {
    auto matrix = core::Matrix::New({7, 9, core::DataType::kFloat32});
    EXPECT_EQ(matrix->Fill(fill), absl::OkStatus());
    const CovarianceSketch sketch(*matrix, 1);
    EXPECT_EQ(sketch.least, fill);
    EXPECT_THAT(HeatMap(sketch), HasSubstr("role=\"img\""));
    EXPECT_THAT(HeatMap(sketch), HasSubstr("7 rows down, 9 columns across"));
    EXPECT_THAT(Histogram(sketch), HasSubstr("63 of 63 looked at"));
    EXPECT_EQ(HeatMap(sketch).find("nan"), std::string::npos);
    EXPECT_EQ(Histogram(sketch).find("nan"), std::string::npos);
  }
}

TEST(CovarianceFiguresTest, TheLeastIsDarkestAndTheMostIsLightest) {
  const auto matrix = Make(1, 2, core::DataType::kFloat32,
                           [](int64_t, int64_t col) { return col == 0 ? 1e-6 : 1.0; });
  const std::string map = HeatMap(CovarianceSketch(*matrix, 1));
  EXPECT_THAT(map, HasSubstr("fill=\"#00224e\" d=\"M0 0h1v1h-1z\"/>"));
  EXPECT_THAT(map, HasSubstr("fill=\"#fee838\" d=\"M1 0h1v1h-1z\"/>"));
  EXPECT_THAT(map, HasSubstr("<span>1e-6</span>"));
  EXPECT_THAT(map, HasSubstr("<span>0.001</span>"));
}

TEST(CovarianceFiguresTest, ZeroIsHatched) {
  const auto matrix =
      Make(2, 2, core::DataType::kFloat32, [](int64_t row, int64_t) { return row * 1.0; });
  const std::string map = HeatMap(CovarianceSketch(*matrix, 1));
  EXPECT_THAT(map, HasSubstr("fill=\"url(#zero)\" d=\"M0 0h2v1h-2z\"/>"));
  EXPECT_THAT(map, HasSubstr("fill=\"#fee838\" d=\"M0 1h2v1h-2z\"/>"));
}

}  // namespace
}  // namespace fisherd::server
