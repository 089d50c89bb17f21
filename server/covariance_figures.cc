#include "server/covariance_figures.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/html.h"

namespace fisherd::server {
namespace {

// Dark to light, told apart by everyone and in grey: matplotlib's "cividis", at nine places.
constexpr uint32_t kCividis[] = {0x00224e, 0x1f3765, 0x434e6c, 0x61656f, 0x7d7c78,
                                 0x9b9476, 0xbbae6c, 0xdcc959, 0xfee838};
// So many are told apart in a picture, and keep it small.
constexpr int kColours = 33;
constexpr double kSide = 384;  // of a picture
constexpr double kLargest = std::numeric_limits<double>::max();

std::string ColourOf(int colour) {
  const double place = static_cast<double>(colour) / (kColours - 1) * (std::size(kCividis) - 1);
  const auto below = std::min(static_cast<size_t>(place), std::size(kCividis) - 2);
  uint32_t mixed = 0;
  for (const int shift : {16, 8, 0}) {
    const double from = kCividis[below] >> shift & 0xff;
    const double to = kCividis[below + 1] >> shift & 0xff;
    mixed |= static_cast<uint32_t>(from + (place - below) * (to - from) + 0.5) << shift;
  }
  return absl::StrFormat("#%06x", mixed);
}

// The powers of ten around a double, and where to find 1 among them.
constexpr int kPowerOfOne = 324;
const std::array<double, 633>& PowersOfTen() {
  static const std::array<double, 633> powers = [] {
    std::array<double, 633> all;
    for (int i = 0; i < 633; ++i) all[i] = std::pow(10.0, i - kPowerOfOne);
    return all;
  }();
  return powers;
}

// floor(log10(value)), in a tenth of the time.
int DecadeOf(double value) {
  const int decade = static_cast<int>(std::floor(std::ilogb(value) * 0.30102999566398120));
  // 2^e ≤ value < 2^(e+1): it is this power of ten, or the next.
  return PowersOfTen()[decade + 1 + kPowerOfOne] <= value ? decade + 1 : decade;
}

// So many rows and columns are looked at, spread evenly: all of them, or together kMostLooked.
std::pair<int64_t, int64_t> GridOf(int64_t rows, int64_t cols) {
  constexpr int64_t kMost = CovarianceSketch::kMostLooked;
  const int64_t grid_rows = std::min(rows, std::max<int64_t>(1024, kMost / cols));
  return {grid_rows, std::min(cols, kMost / grid_rows)};
}

// A row of the matrix: where it is, or, if that is a device, in `fetched`.
template <typename T>
std::span<const T> RowOf(const core::Matrix& matrix, int64_t row, std::vector<std::byte>& fetched) {
  const int64_t cols = matrix.shape().cols;
  if (matrix.device() == nullptr) {
    return matrix.elements<T>().subspan(static_cast<size_t>(row * cols), static_cast<size_t>(cols));
  }
  fetched.assign(static_cast<size_t>(cols) * sizeof(T), std::byte{0});  // of a lost device: zeros
  matrix.device()->Download(row * cols * static_cast<int64_t>(sizeof(T)), fetched).IgnoreError();
  return {reinterpret_cast<const T*>(fetched.data()), static_cast<size_t>(cols)};
}

}  // namespace

CovarianceSketch::CovarianceSketch(const core::Matrix& matrix, double divisor)
    : matrix_rows(matrix.shape().rows),
      matrix_cols(matrix.shape().cols),
      rows(std::min(matrix_rows, kMostCells)),
      cols(std::min(matrix_cols, kMostCells)),
      cells(static_cast<size_t>(rows * cols)) {
  const std::pair<int64_t, int64_t> grid = GridOf(matrix_rows, matrix_cols);
  const int64_t grid_rows = grid.first;  // a binding is none that Clang 14 lets a lambda see
  const int64_t grid_cols = grid.second;
  std::vector<int64_t> counts(cells.size());
  double sum = 0;
  least = std::numeric_limits<double>::infinity();
  const auto look = [&](auto elements, int64_t row) {  // which are of that row
    const int64_t first_cell = row * rows / matrix_rows * cols;
    for (int64_t i = 0; i < grid_cols; ++i) {
      const int64_t col = i * matrix_cols / grid_cols;
      const double value = std::min(static_cast<double>(elements[col]) / divisor, kLargest);
      const int64_t cell = first_cell + col * cols / matrix_cols;
      cells[cell] += value;
      ++counts[cell];
      sum += value;
      most = std::max(most, value);
      if (value > 0) {
        least = std::min(least, value);
        ++decades[std::clamp(DecadeOf(value) - kLeastDecade, 0, kDecades - 1)];
      } else {
        ++zeros;
      }
    }
  };
  std::vector<std::byte> fetched;
  for (int64_t i = 0; i < grid_rows; ++i) {
    const int64_t row = i * matrix_rows / grid_rows;
    if (matrix.shape().dtype == core::DataType::kFloat64) {
      look(RowOf<double>(matrix, row, fetched), row);
    } else {
      look(RowOf<float>(matrix, row, fetched), row);
    }
  }
  looked = grid_rows * grid_cols;
  for (size_t i = 0; i < cells.size(); ++i)
    cells[i] = std::min(cells[i] / static_cast<double>(counts[i]), kLargest);
  mean = std::min(sum / static_cast<double>(looked), kLargest);
  if (most == 0) least = 0;
}

namespace {

// The scale of a picture's colours: of the cells that are not zero, by their logarithms.
class ColourScale {
 public:
  explicit ColourScale(const std::vector<double>& cells) {
    for (const double cell : cells) {
      if (cell <= 0) continue;
      least_ = most_ == 0 ? cell : std::min(least_, cell);
      most_ = std::max(most_, cell);
    }
  }
  bool empty() const { return most_ == 0; }
  // −1: zero, which has no logarithm.
  int Of(double cell) const {
    if (cell <= 0) return -1;
    if (most_ <= least_) return kColours - 1;
    const double place = (std::log(cell) - std::log(least_)) / (std::log(most_) - std::log(least_));
    return std::clamp(static_cast<int>(place * kColours), 0, kColours - 1);
  }
  // The value at a place of 0 to 1.
  double At(double place) const {
    return std::exp((1 - place) * std::log(least_) + place * std::log(most_));
  }

 private:
  double least_ = 0;
  double most_ = 0;
};

// Zero is hatched, so that no colour stands for it. The pattern is of the page; `pixel` is one in
// the coordinates of whoever uses it.
std::string Hatching(double pixel) {
  return absl::StrFormat(
      "<defs><pattern id=\"zero\" width=\"%.4g\" height=\"%.4g\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><path class=\"hatch\" stroke-width=\"%.4g\" "
      "d=\"M%.4g 0v%.4g\"/></pattern></defs>",
      5 * pixel, 5 * pixel, 1.5 * pixel, 2.5 * pixel, 5 * pixel);
}

std::string Legend(const ColourScale& scale, bool has_zeros, double pixel) {
  std::string html = "<div class=\"legend\">";
  if (has_zeros) {
    absl::StrAppendFormat(&html,
                          "<div><svg aria-hidden=\"true\" viewBox=\"0 0 %.4g %.4g\" width=\"24\" "
                          "height=\"12\"><rect width=\"%.4g\" height=\"%.4g\" "
                          "fill=\"url(#zero)\"/></svg>0</div>",
                          24 * pixel, 12 * pixel, 24 * pixel, 12 * pixel);
  }
  if (!scale.empty()) {
    html += "<div class=\"scale\"><svg aria-hidden=\"true\" preserveAspectRatio=\"none\" ";
    absl::StrAppendFormat(&html, "viewBox=\"0 0 %d 1\" shape-rendering=\"crispEdges\">", kColours);
    for (int i = 0; i < kColours; ++i) {
      absl::StrAppendFormat(&html, "<path fill=\"%s\" d=\"M%d 0h1v1h-1z\"/>", ColourOf(i), i);
    }
    html += "</svg><div>";
    for (const double place : {0.0, 0.25, 0.5, 0.75, 1.0}) {
      absl::StrAppend(&html, "<span>", HumanNumber(scale.At(place)), "</span>");
    }
    html += "</div></div>";
  }
  return html + "</div>";
}

}  // namespace

std::string HeatMap(const CovarianceSketch& sketch) {
  const ColourScale scale(sketch.cells);
  // One path for each colour, of runs of cells in a row.
  std::map<int, std::string> paths;
  for (int64_t row = 0; row < sketch.rows; ++row) {
    const double* const cells = &sketch.cells[row * sketch.cols];
    for (int64_t col = 0; col < sketch.cols;) {
      const int colour = scale.Of(cells[col]);
      int64_t end = col + 1;
      while (end < sketch.cols && scale.Of(cells[end]) == colour) ++end;
      absl::StrAppendFormat(&paths[colour], "M%d %dh%dv1h-%dz", col, row, end - col, end - col);
      col = end;
    }
  }
  // Of a few rows or columns a strip remains that can be seen.
  const double cell = kSide / static_cast<double>(std::max(sketch.rows, sketch.cols));
  const std::string title =
      absl::StrCat("Heat map of the covariance: entries from ", HumanNumber(sketch.least), " to ",
                   HumanNumber(sketch.most), ", mean ", HumanNumber(sketch.mean));
  const double width = std::max(cell * static_cast<double>(sketch.cols), 24.0);
  const double height = std::max(cell * static_cast<double>(sketch.rows), 24.0);
  std::string html = absl::StrFormat(
      "<figure><svg role=\"img\" aria-label=\"%s\" viewBox=\"0 0 %d %d\" "
      "style=\"width:%.0fpx;aspect-ratio:%.0f/%.0f\" preserveAspectRatio=\"none\">%s",
      title, sketch.cols, sketch.rows, width, width, height, Hatching(1 / cell));
  for (const auto& [colour, path] : paths) {
    absl::StrAppend(&html, "<path shape-rendering=\"crispEdges\" fill=\"",
                    colour < 0 ? "url(#zero)" : ColourOf(colour), "\" d=\"", path, "\"/>");
  }
  absl::StrAppend(&html, "</svg>", Legend(scale, paths.contains(-1), 1 / cell), "<figcaption>",
                  sketch.matrix_rows, " rows down, ", sketch.matrix_cols, " columns across");
  if (sketch.rows < sketch.matrix_rows || sketch.cols < sketch.matrix_cols) {
    absl::StrAppend(&html, ", in ", sketch.rows, " × ", sketch.cols,
                    " cells of which each shows the mean of its entries");
  }
  if (scale.empty()) {
    const bool all = sketch.looked == sketch.matrix_rows * sketch.matrix_cols;
    return absl::StrCat(html, all ? ". Every entry" : ". Every entry that was looked at",
                        " is 0.</figcaption></figure>");
  }
  return absl::StrCat(html, ". Colours by logarithm. Entries from ", HumanNumber(sketch.least),
                      " to ", HumanNumber(sketch.most), ", mean ", HumanNumber(sketch.mean),
                      ".</figcaption></figure>");
}

std::string Histogram(const CovarianceSketch& sketch) {
  const auto filled = [&](int decade) { return sketch.decades[decade] > 0; };
  int first = 0;
  int last = CovarianceSketch::kDecades - 1;
  while (first < last && !filled(first)) ++first;
  while (last > first && !filled(last)) --last;
  if (!filled(first)) last = first - 1;
  const int64_t highest = std::max<int64_t>(
      {1, sketch.zeros, *std::max_element(sketch.decades.begin(), sketch.decades.end())});
  // Zeros, which have no logarithm, are a bar of their own.
  const int bars = last - first + 2;
  constexpr double kHeight = 240;
  constexpr double kLeft = 40;
  constexpr double kTop = 12;
  constexpr double kFloor = 200;
  const double step = std::min((kSide - kLeft - 8) / bars, 48.0);
  // By logarithm too, so that a single entry among millions is seen: 1 stands above nothing.
  const double top = 1 + std::ceil(std::log10(static_cast<double>(highest)));
  const auto y = [&](double count) {
    return kFloor - (count < 1 ? 0 : (kFloor - kTop) * (1 + std::log10(count)) / top);
  };
  std::string svg = absl::StrFormat(
      "<figure><svg role=\"img\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
      "aria-label=\"Histogram of %d entries by powers of ten; %d are 0\">",
      kSide, kHeight, kSide, kHeight, sketch.looked, sketch.zeros);
  for (int power = 0; power < top; ++power) {
    const double at = y(std::pow(10.0, power));
    absl::StrAppendFormat(&svg, "<path class=\"grid\" d=\"M%.0f %.1fH%.0f\"/>", kLeft, at, kSide);
    if (top <= 5 || power % 2 == 0) {
      absl::StrAppendFormat(
          &svg, "<text class=\"axis\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
          kLeft - 6, at + 4, HumanNumber(std::pow(10.0, power)));
    }
  }
  const int every = bars <= 10 ? 1 : bars <= 20 ? 2 : 5;  // power of ten is named
  const auto bar = [&](int i, int64_t count, const std::string& label, bool named) {
    const double at = y(static_cast<double>(count));
    absl::StrAppendFormat(&svg,
                          "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                          "height=\"%.1f\"><title>%s: %d</title></rect>",
                          kLeft + i * step + 1, at, std::max(step - 2, 1.0), kFloor - at, label,
                          count);
    if (named) {
      absl::StrAppendFormat(
          &svg, "<text class=\"axis\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
          kLeft + (i + 0.5) * step, kFloor + 15, label);
    }
  };
  bar(0, sketch.zeros, "0", true);
  for (int decade = first; decade <= last; ++decade) {
    const int power = decade + CovarianceSketch::kLeastDecade;
    const bool has_room = decade > first || every == 1;  // beside the 0
    bar(decade - first + 1, sketch.decades[decade], absl::StrCat("1e", power),
        has_room && power % every == 0);
  }
  absl::StrAppendFormat(&svg,
                        "<path class=\"axisline\" d=\"M%.0f %.0fH%.0f\"/><text class=\"axis\" "
                        "x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">entry</text></svg>",
                        kLeft, kFloor, kSide, kSide, kFloor + 34);
  return absl::StrCat(svg, "<figcaption>How many entries are of which power of ten, both by ",
                      "logarithm: ", sketch.looked, " of ", sketch.matrix_rows * sketch.matrix_cols,
                      " looked at.</figcaption></figure>");
}

}  // namespace fisherd::server
