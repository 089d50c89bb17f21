// What fisherd computes, as plainly as it can be written: SPEC §1 to §3 in 64-bit floats, one loop
// per sum. Slow, and right by inspection; everything faster is tested against it.

#ifndef FISHERD_CORE_KERNELS_REFERENCE_H_
#define FISHERD_CORE_KERNELS_REFERENCE_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fisherd::kernels::reference {

// A row-major matrix of zeros, to begin with.
struct Dense {
  Dense() = default;
  Dense(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(rows * cols) {}

  double& operator()(int64_t row, int64_t col) { return values[row * cols + col]; }
  double operator()(int64_t row, int64_t col) const { return values[row * cols + col]; }

  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> values;
};

// What one tower sends for one step.
struct Tower {
  Dense inputs;                      // [N, I]
  std::vector<Dense> outputs_grads;  // [N, O] of every source
  double gradient_scale = 1;
  std::vector<double> row_weights;  // [N], or empty: all 1

  double row_weight(int64_t row) const { return row_weights.empty() ? 1 : row_weights[row]; }
  // N, or what stands for it.
  double examples() const {
    double sum = 0;
    for (int64_t row = 0; row < inputs.rows; ++row) sum += row_weight(row);
    return sum;
  }
};

// Σ_s C(s,t) = (A∘A)ᵀ (Σ_s G_s∘G_s) / N  of one tower, [H, O]; the bias is the last row.
inline Dense TowerCovariance(const Tower& tower, bool has_bias) {
  const int64_t inputs = tower.inputs.cols;
  const int64_t outputs = tower.outputs_grads[0].cols;
  const double examples = tower.examples();
  Dense c(inputs + has_bias, outputs);
  for (const Dense& grads : tower.outputs_grads) {
    for (int64_t row = 0; row < tower.inputs.rows; ++row) {
      for (int64_t in = 0; in < c.rows; ++in) {
        for (int64_t out = 0; out < c.cols; ++out) {
          const double a = in < inputs ? tower.inputs(row, in) : 1;
          const double g = tower.gradient_scale * grads(row, out);
          c(in, out) += tower.row_weight(row) * (a * a) * (g * g) / examples;
        }
      }
    }
  }
  return c;
}

// C of one step: the mean over the towers, or over all their examples.
inline Dense Covariance(const std::vector<Tower>& towers, bool has_bias, bool example_weighted) {
  double all_examples = 0;
  for (const Tower& tower : towers) all_examples += tower.examples();
  Dense c;
  for (const Tower& tower : towers) {
    const Dense of_tower = TowerCovariance(tower, has_bias);
    const double share = example_weighted ? tower.examples() / all_examples
                                          : 1.0 / static_cast<double>(towers.size());
    if (c.values.empty()) c = Dense(of_tower.rows, of_tower.cols);
    for (size_t k = 0; k < c.values.size(); ++k) c.values[k] += share * of_tower.values[k];
  }
  return c;
}

// var ← decay·var + weight·C, and the total of the weights beside it.
struct MovingAverage {
  Dense var;
  double total_weight = 0;

  void Step(double decay, double weight, const Dense& c) {
    for (size_t k = 0; k < var.values.size(); ++k) {
      var.values[k] = decay * var.values[k] + weight * c.values[k];
    }
    total_weight = decay * total_weight + weight;
  }

  // var / total_weight.
  Dense Debiased() const {
    Dense value = var;
    for (double& v : value.values) v /= total_weight;
    return value;
  }
};

// (v + λ)^e, entry-wise.
inline Dense Matpower(Dense v, double exponent, double damping) {
  for (double& x : v.values) x = std::pow(x + damping, exponent);
  return v;
}

// The product of the diagonal matrix of `diagonal` with x, both [H, O], entry-wise.
inline Dense Multiply(const Dense& diagonal, Dense x) {
  for (size_t k = 0; k < x.values.size(); ++k) x.values[k] *= diagonal.values[k];
  return x;
}

}  // namespace fisherd::kernels::reference

#endif  // FISHERD_CORE_KERNELS_REFERENCE_H_
