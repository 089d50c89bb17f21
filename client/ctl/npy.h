// NumPy's .npy format, version 1.0.

#ifndef FISHERD_CTL_NPY_H_
#define FISHERD_CTL_NPY_H_

#include <string>

#include "absl/status/status.h"
#include "fisherd/matrix.h"

namespace fisherd::ctl {

// What stands before the elements of a row-major matrix [rows, cols] of float or double: magic,
// version, and the description, padded so that the elements begin at a multiple of 64 bytes.
std::string NpyHeader(v1::DataType dtype, int64_t rows, int64_t cols);

// Writes a matrix to a file, which it replaces when all is written. An error names the file.
absl::Status WriteNpy(const std::string& path, const MatrixView& matrix);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_NPY_H_
