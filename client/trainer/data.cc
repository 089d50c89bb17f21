#include "client/trainer/data.h"

#include <zlib.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/trainer/random.h"

namespace fisherd::trainer {
namespace {

constexpr int kPixels = 64;
constexpr int kBrightest = 16;
constexpr int kClasses = 10;

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  // zlib reads a file that is not gzipped as it is.
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) return absl::NotFoundError(absl::StrCat("cannot open \"", path, "\""));
  std::string text;
  char buffer[1 << 16];
  int count;
  while ((count = gzread(file.get(), buffer, sizeof(buffer))) > 0) text.append(buffer, count);
  if (int code; count < 0) return absl::DataLossError(gzerror(file.get(), &code));
  return text;
}

// True if `line` is 64 pixels and a digit, which are then appended.
bool AppendExample(absl::string_view line, std::vector<float>& pixels, std::vector<int>& labels) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  if (fields.size() != kPixels + 1) return false;
  for (int i = 0; i <= kPixels; ++i) {
    int value;
    const int limit = i < kPixels ? kBrightest : kClasses - 1;
    if (!absl::SimpleAtoi(fields[i], &value) || value < 0 || value > limit) return false;
    if (i < kPixels) {
      pixels.push_back(static_cast<float>(value) / kBrightest);
    } else {
      labels.push_back(value);
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<Examples> ReadDigits(const std::string& path) {
  absl::StatusOr<std::string> text = ReadAll(path);
  if (!text.ok()) return text.status();
  Examples examples;
  std::vector<float> pixels;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(absl::StripTrailingAsciiWhitespace(*text), '\n')) {
    ++number;
    if (!AppendExample(absl::StripTrailingAsciiWhitespace(line), pixels, examples.labels)) {
      return absl::DataLossError(absl::StrCat(path, " line ", number, ": expected ", kPixels,
                                              " pixels from 0 to ", kBrightest, " and a digit"));
    }
  }
  examples.inputs = Eigen::Map<const Matrix>(pixels.data(), examples.size(), kPixels);
  return examples;
}

Examples Rows(const Examples& examples, std::span<const int> rows) {
  Examples picked;
  picked.inputs.resize(static_cast<Eigen::Index>(rows.size()), examples.inputs.cols());
  for (size_t i = 0; i < rows.size(); ++i) {
    picked.inputs.row(i) = examples.inputs.row(rows[i]);
    picked.labels.push_back(examples.labels[rows[i]]);
  }
  return picked;
}

Split SplitExamples(const Examples& examples, int train_size, uint32_t seed) {
  const std::vector<int> order = Random({seed}).Permutation(examples.size());
  const std::span<const int> rows(order);
  return {Rows(examples, rows.first(train_size)), Rows(examples, rows.subspan(train_size))};
}

std::vector<int> DarkColumns(const Matrix& inputs) {
  std::vector<int> dark;
  for (int column = 0; column < inputs.cols(); ++column) {
    if ((inputs.col(column).array() == 0).all()) dark.push_back(column);
  }
  return dark;
}

}  // namespace fisherd::trainer
