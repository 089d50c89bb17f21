#include "client/ctl/format.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace fisherd::ctl {
namespace {

size_t CodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.,+-e") == std::string_view::npos &&
         text.find_first_of("0123456789") != std::string_view::npos;
}

// "  62 % [############........]"
std::string Bar(int64_t done, int64_t total) {
  constexpr int kWidth = 20;
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const int filled = static_cast<int>(share * kWidth);
  return absl::StrFormat("%4.0f %% [%s%s]", 100 * share, std::string(filled, '#'),
                         std::string(kWidth - filled, '.'));
}

}  // namespace

std::string WithThousands(int64_t number) {
  std::string digits = absl::StrCat(number);
  const int64_t first = number < 0 ? 1 : 0;
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > first; at -= 3) {
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string Bytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return absl::StrFormat("%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, unit);
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> numeric;
  for (size_t row = 0; row < rows.size(); ++row) {
    widths.resize(std::max(widths.size(), rows[row].size()));
    numeric.resize(widths.size(), rows.size() > 1);
    for (size_t column = 0; column < rows[row].size(); ++column) {
      const std::string& cell = rows[row][column];
      widths[column] = std::max(widths[column], CodePoints(cell));
      if (row > 0 && !IsNumber(cell)) numeric[column] = false;
    }
  }
  std::string table;
  for (const auto& row : rows) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - CodePoints(row[column]), ' ');
      if (column > 0) line += "  ";
      line += numeric[column] ? padding + row[column] : row[column] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&table, line, "\n");
  }
  return table;
}

std::string Progress(int64_t done, int64_t total, double seconds) {
  const int64_t rate = seconds > 0 ? static_cast<int64_t>(static_cast<double>(done) / seconds) : 0;
  return absl::StrFormat("%s  %s of %s, %s/s", Bar(done, total), Bytes(done), Bytes(total),
                         Bytes(rate));
}

std::string CountProgress(int64_t done, int64_t total, double) {
  return absl::StrFormat("%s  %s of %s", Bar(done, total), WithThousands(done),
                         WithThousands(total));
}

}  // namespace fisherd::ctl
