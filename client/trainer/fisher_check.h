// The proof that the served Fisher is right: the same average, computed again in the trainer by
// plain loops in 64 bits.

#ifndef FISHERD_TRAINER_FISHER_CHECK_H_
#define FISHERD_TRAINER_FISHER_CHECK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/trainer/network.h"

namespace fisherd::trainer {

// What one tower streamed for a layer in one step.
struct TowerBatch {
  const Matrix& inputs;         // A [N, I]
  const Matrix& outputs_grads;  // G [N, O]
};

// The exact diagonal Fisher of one layer with bias. Not thread-safe.
class ExactFisher {
 public:
  ExactFisher(int input_size, int output_size, double decay);

  // The mean over towers of Σ_n [a_n, 1]²ᵀ g_n² / N enters the moving average.
  void Add(std::span<const TowerBatch> towers);

  // [I + 1, O]; zero-debiased, so it is an average from the first step on.
  MatrixXd Value() const { return squares_ / total_weight_; }

  // Trace of what the commonest mistake would have averaged, (Σ_n [a_n, 1]ᵀ g_n / N)² over all
  // towers' rows, as a share of the right trace.
  double BatchMeanShare() const { return mean_squared_trace_ / squares_.sum(); }

 private:
  const double decay_;
  double total_weight_ = 0;
  MatrixXd squares_;
  double mean_squared_trace_ = 0;
};

struct Comparison {
  double largest_difference = 0;  // |served − exact| / exact, infinite where exact alone is 0
  int64_t dark_entries = 0;       // in the rows of inputs that were always 0
  int64_t dark_not_zero = 0;      // of those, on either side
};
Comparison Compare(const MatrixXd& served, const MatrixXd& exact, std::span<const int> dark_rows);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_FISHER_CHECK_H_
