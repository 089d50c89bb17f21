#include "client/ctl/npy.h"

#include <cerrno>
#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace fisherd::ctl {

std::string NpyHeader(v1::DataType dtype, int64_t rows, int64_t cols) {
  std::string header =
      absl::StrCat("{'descr': '", dtype == v1::DATA_TYPE_FLOAT64 ? "<f8" : "<f4",
                   "', 'fortran_order': False, 'shape': (", rows, ", ", cols, "), }");
  constexpr size_t kPrefix = 10;  // magic, version, length of the header
  const size_t total = (kPrefix + header.size() + 1 + 63) / 64 * 64;
  header.append(total - kPrefix - 1 - header.size(), ' ');
  header.push_back('\n');
  std::string prefix("\x93NUMPY\x01\x00", 8);
  prefix.push_back(static_cast<char>(header.size() & 0xFF));
  prefix.push_back(static_cast<char>(header.size() >> 8));
  return prefix + header;
}

absl::Status WriteNpy(const std::string& path, const MatrixView& matrix) {
  const std::string unfinished = absl::StrCat(path, ".part");
  std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
  const std::string header = NpyHeader(matrix.dtype(), matrix.rows(), matrix.cols());
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (int64_t row = 0; row < matrix.rows(); ++row) {
    const auto bytes = matrix.row(row);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  file.close();
  if (!file || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(unfinished.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

}  // namespace fisherd::ctl
