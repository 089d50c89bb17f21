// Pictures of a covariance's entries.

#ifndef FISHERD_SERVER_COVARIANCE_FIGURES_H_
#define FISHERD_SERVER_COVARIANCE_FIGURES_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/matrix.h"

namespace fisherd::server {

// What the pictures show of a matrix with entries ≥ 0: of all of them, or, of a large one, of a
// grid of at most kMostLooked. Takes milliseconds.
class CovarianceSketch {
 public:
  static constexpr int64_t kMostCells = 64;  // of a side
  static constexpr int64_t kMostLooked = int64_t{1} << 20;
  // Powers of ten from 1e-20 on; the first takes what is below, the last what is above.
  static constexpr int kLeastDecade = -20;
  static constexpr int kDecades = 40;

  // Of the entries divided by `divisor`, > 0.
  CovarianceSketch(const core::Matrix& matrix, double divisor);

  int64_t matrix_rows = 0;
  int64_t matrix_cols = 0;
  int64_t rows = 0;           // of cells
  int64_t cols = 0;           // of cells
  std::vector<double> cells;  // the mean of what was looked at in each, row by row
  std::array<int64_t, kDecades> decades{};
  int64_t zeros = 0;
  int64_t looked = 0;
  double least = 0;  // but for zeros
  double most = 0;
  double mean = 0;
};

// As figures of HTML with a caption.
std::string HeatMap(const CovarianceSketch& sketch);
std::string Histogram(const CovarianceSketch& sketch);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_COVARIANCE_FIGURES_H_
