#include "client/trainer/fisher_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fisherd::trainer {

ExactFisher::ExactFisher(int input_size, int output_size, double decay)
    : decay_(decay), squares_(MatrixXd::Zero(input_size + 1, output_size)) {}

void ExactFisher::Add(std::span<const TowerBatch> towers) {
  MatrixXd step = MatrixXd::Zero(squares_.rows(), squares_.cols());
  MatrixXd sum = step;
  int64_t rows = 0;
  for (const auto& [inputs, outputs_grads] : towers) {
    const double scale = 1.0 / (static_cast<double>(towers.size()) * inputs.rows());
    rows += inputs.rows();
    for (int n = 0; n < inputs.rows(); ++n) {
      for (int i = 0; i < step.rows(); ++i) {
        const double a = i < inputs.cols() ? inputs(n, i) : 1;
        for (int o = 0; o < step.cols(); ++o) {
          const double gradient = a * outputs_grads(n, o);
          step(i, o) += gradient * gradient * scale;
          sum(i, o) += gradient;
        }
      }
    }
  }
  squares_ = decay_ * squares_ + (1 - decay_) * step;
  total_weight_ = decay_ * total_weight_ + (1 - decay_);
  mean_squared_trace_ =
      decay_ * mean_squared_trace_ + (1 - decay_) * (sum / static_cast<double>(rows)).squaredNorm();
}

Comparison Compare(const MatrixXd& served, const MatrixXd& exact, std::span<const int> dark_rows) {
  Comparison result;
  for (int i = 0; i < exact.rows(); ++i) {
    for (int o = 0; o < exact.cols(); ++o) {
      const double difference = std::abs(served(i, o) - exact(i, o));
      const double relative = difference == 0 ? 0
                              : exact(i, o) > 0 && std::isfinite(difference)
                                  ? difference / exact(i, o)
                                  : std::numeric_limits<double>::infinity();
      result.largest_difference = std::max(result.largest_difference, relative);
    }
  }
  for (int row : dark_rows) {
    result.dark_entries += exact.cols();
    result.dark_not_zero += (served.row(row).array() != 0 || exact.row(row).array() != 0).count();
  }
  return result;
}

}  // namespace fisherd::trainer
