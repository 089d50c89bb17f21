#include "server/covariance_figures.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/html.h"

namespace fisherd::server {
namespace {

// Dark to light, told apart by everyone and in grey: matplotlib's "cividis", at nine places.
constexpr const char* kColours[] = {"#00224e", "#1f3765", "#434e6c", "#61656f", "#7d7c78",
                                    "#9b9476", "#bbae6c", "#dcc959", "#fee838"};

// So many entries of a side lie one step apart.
int64_t StrideOf(int64_t size, double share) {
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(1 / share)), 1, size);
}

int DecadeOf(double value) {
  const int decade = static_cast<int>(std::floor(std::log10(value)));
  return std::clamp(decade - CovarianceSketch::kLeastDecade, 0, CovarianceSketch::kDecades - 1);
}

// The place of a value between the least and the most, by their logarithms, 0 to 1.
double Place(double value, const CovarianceSketch& sketch) {
  if (value <= 0 || sketch.most <= sketch.least) return value > 0 ? 1 : 0;
  const double low = std::log(sketch.least);
  return std::clamp((std::log(value) - low) / (std::log(sketch.most) - low), 0.0, 1.0);
}

const char* ColourOf(double place) {
  const auto last = std::size(kColours) - 1;
  return kColours[std::min(static_cast<size_t>(place * (last + 1)), last)];
}

}  // namespace

CovarianceSketch::CovarianceSketch(const core::Matrix& matrix, double divisor)
    : matrix_rows(matrix.shape().rows),
      matrix_cols(matrix.shape().cols),
      rows(std::min(matrix_rows, kMostCells)),
      cols(std::min(matrix_cols, kMostCells)),
      cells(static_cast<size_t>(rows * cols)) {
  const double share = std::min(1.0, std::sqrt(static_cast<double>(kMostLooked) /
                                               static_cast<double>(matrix_rows * matrix_cols)));
  // A stride that is no multiple of a cell's side leaves none without an entry.
  const int64_t row_stride =
      std::min(StrideOf(matrix_rows, share), std::max<int64_t>(matrix_rows / rows, 1));
  const int64_t col_stride =
      std::min(StrideOf(matrix_cols, share), std::max<int64_t>(matrix_cols / cols, 1));
  std::vector<int64_t> counts(cells.size());
  double sum = 0;
  least = std::numeric_limits<double>::infinity();
  const auto look = [&](auto elements) {
    for (int64_t row = 0; row < matrix_rows; row += row_stride) {
      for (int64_t col = 0; col < matrix_cols; col += col_stride) {
        const double value = static_cast<double>(elements[row * matrix_cols + col]) / divisor;
        const int64_t cell = row * rows / matrix_rows * cols + col * cols / matrix_cols;
        cells[cell] += value;
        ++counts[cell];
        ++looked;
        sum += value;
        most = std::max(most, value);
        if (value > 0) {
          least = std::min(least, value);
          ++decades[DecadeOf(value)];
        } else {
          ++zeros;
        }
      }
    }
  };
  if (matrix.shape().dtype == core::DataType::kFloat64) {
    look(matrix.elements<double>());
  } else {
    look(matrix.elements<float>());
  }
  for (size_t i = 0; i < cells.size(); ++i) cells[i] /= std::max<double>(counts[i], 1);
  mean = sum / static_cast<double>(looked);
  if (most == 0) least = 0;
}

std::string HeatMap(const CovarianceSketch& sketch) {
  constexpr double kSide = 384;
  const double cell = kSide / static_cast<double>(std::max(sketch.rows, sketch.cols));
  const double width = cell * sketch.cols;
  const double height = cell * sketch.rows;
  std::string svg = absl::StrFormat(
      "<figure><svg role=\"img\" viewBox=\"0 0 %.1f %.1f\" width=\"%.0f\" height=\"%.0f\" "
      "shape-rendering=\"crispEdges\" aria-label=\"Heat map of the covariance: entries from %s to "
      "%s, mean %s\">",
      width, height, width, height, HumanNumber(sketch.least), HumanNumber(sketch.most),
      HumanNumber(sketch.mean));
  for (int64_t row = 0; row < sketch.rows; ++row) {
    for (int64_t col = 0; col < sketch.cols;) {
      const auto colour = [&](int64_t c) {
        return ColourOf(Place(sketch.cells[row * sketch.cols + c], sketch));
      };
      int64_t end = col + 1;  // neighbours of one colour are one rectangle
      while (end < sketch.cols && colour(end) == colour(col)) ++end;
      absl::StrAppendFormat(
          &svg, "<rect x=\"%.4g\" y=\"%.4g\" width=\"%.4g\" height=\"%.4g\" fill=\"%s\"/>",
          cell * col, cell * row, cell * (end - col), cell, colour(col));
      col = end;
    }
  }
  svg += "</svg><svg role=\"presentation\" viewBox=\"0 0 384 28\" width=\"384\" height=\"28\">";
  for (size_t i = 0; i < std::size(kColours); ++i) {
    absl::StrAppendFormat(&svg, "<rect x=\"%d\" y=\"4\" width=\"20\" height=\"10\" fill=\"%s\"/>",
                          20 * i, kColours[i]);
  }
  absl::StrAppendFormat(&svg,
                        "<text class=\"axis\" x=\"0\" y=\"26\">%s</text><text class=\"axis\" "
                        "x=\"180\" y=\"26\" text-anchor=\"end\">%s</text></svg>",
                        HumanNumber(sketch.least), HumanNumber(sketch.most));
  return absl::StrCat(svg, "<figcaption>", sketch.matrix_rows, " inputs down, ", sketch.matrix_cols,
                      " outputs across, on a logarithmic scale; mean ", HumanNumber(sketch.mean),
                      "</figcaption></figure>");
}

std::string Histogram(const CovarianceSketch& sketch) {
  const auto filled = [&](int decade) { return sketch.decades[decade] > 0; };
  int first = 0;
  int last = CovarianceSketch::kDecades - 1;
  while (first < last && !filled(first)) ++first;
  while (last > first && !filled(last)) --last;
  const int64_t highest = std::max<int64_t>(
      {1, sketch.zeros, *std::max_element(sketch.decades.begin(), sketch.decades.end())});
  // Zeros, which have no logarithm, are a bar of their own.
  const int bars = last - first + 2;
  constexpr double kWidth = 384;
  constexpr double kHeight = 220;
  constexpr double kFloor = 190;
  const double step = kWidth / bars;
  std::string svg = absl::StrFormat(
      "<figure><svg role=\"img\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
      "aria-label=\"Histogram of %d entries by powers of ten; %d are 0\">",
      kWidth, kHeight, kWidth, kHeight, sketch.looked, sketch.zeros);
  const auto bar = [&](int i, int64_t count, const std::string& label) {
    // By logarithm too, so that a single entry among millions is seen.
    const double size = count == 0 ? 0
                                   : (kFloor - 20) * (1 + std::log10(static_cast<double>(count))) /
                                         (1 + std::log10(static_cast<double>(highest)));
    absl::StrAppendFormat(&svg,
                          "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                          "height=\"%.1f\"><title>%s: %d</title></rect>",
                          i * step + 1, kFloor - size, std::max(step - 2, 1.0), size, label, count);
    if (bars <= 12 || i % 4 == 0) {
      absl::StrAppendFormat(
          &svg, "<text class=\"axis\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
          (i + 0.5) * step, kFloor + 14, label);
    }
  };
  bar(0, sketch.zeros, "0");
  for (int decade = first; decade <= last; ++decade) {
    bar(decade - first + 1, sketch.decades[decade],
        absl::StrCat("1e", decade + CovarianceSketch::kLeastDecade));
  }
  return absl::StrCat(svg, "</svg><figcaption>entries by powers of ten, counts on a logarithmic ",
                      "scale; ", sketch.looked, " of ", sketch.matrix_rows * sketch.matrix_cols,
                      " looked at</figcaption></figure>");
}

}  // namespace fisherd::server
