// The handwritten digits: 1,797 images of 8 × 8 pixels (data/README.md says where they come from).

#ifndef FISHERD_TRAINER_DATA_H_
#define FISHERD_TRAINER_DATA_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fisherd/matrix.h"

namespace fisherd::trainer {

using Matrix = fisherd::Matrix<float>;
using MatrixXd = fisherd::Matrix<double>;

// One example per row.
struct Examples {
  Matrix inputs;            // [N, 64], in [0, 1]
  std::vector<int> labels;  // [N], 0 to 9

  int size() const { return static_cast<int>(labels.size()); }
};

// Reads a CSV file, gzipped or not: 64 pixels from 0 to 16 and the digit on every line. NOT_FOUND
// if the file cannot be opened, DATA_LOSS with the line's number if it holds anything else.
absl::StatusOr<Examples> ReadDigits(const std::string& path);

// Those rows, in that order.
Examples Rows(const Examples& examples, std::span<const int> rows);

struct Split {
  Examples train;
  Examples test;
};

// Draws `train_size` examples for training and keeps the rest for the test.
Split SplitExamples(const Examples& examples, int train_size, uint32_t seed);

// The columns that are 0 in every row: pixels that are dark in every image.
std::vector<int> DarkColumns(const Matrix& inputs);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_DATA_H_
