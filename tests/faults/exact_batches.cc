#include "tests/faults/exact_batches.h"

#include <random>

#include "absl/strings/str_cat.h"

namespace fisherd::faults {
namespace {

Matrix<float> SmallIntegers(int64_t rows, int64_t cols, std::minstd_rand& random) {
  return Matrix<float>::NullaryExpr(rows, cols,
                                    [&] { return static_cast<float>((random() >> 8) % 4) - 1; });
}

// FNV-1a: the same on every machine.
uint32_t Hash(std::string_view text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// Σ over the rows of a²·g², the bias last.
Matrix<double> Squares(const ExactBatch& batch) {
  Matrix<double> inputs(batch.inputs.rows(), batch.inputs.cols() + 1);
  inputs << batch.inputs.cast<double>(), Vector<double>::Ones(batch.inputs.rows());
  return inputs.cwiseAbs2().transpose() * batch.grads.cast<double>().cwiseAbs2();
}

}  // namespace

ExactBatch MakeBatch(const Layer& layer, std::string_view factor, int64_t step, int tower) {
  std::minstd_rand random(Hash(absl::StrCat(std::string(factor), " ", step, " ", tower)));
  const int64_t rows = layer.rows_of(tower);
  ExactBatch batch;
  batch.inputs = SmallIntegers(rows, layer.inputs, random);
  batch.grads = SmallIntegers(rows, layer.outputs, random);
  return batch;
}

Matrix<double> StepSum(const Layer& layer, std::string_view factor, int64_t step,
                       const std::vector<int>& towers, v1::TowerWeighting weighting) {
  Matrix<double> sum = Matrix<double>::Zero(layer.inputs + 1, layer.outputs);
  double all_rows = 0;
  for (const int tower : towers) all_rows += static_cast<double>(layer.rows_of(tower));
  for (const int tower : towers) {
    const double divisor =
        weighting == v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED
            ? all_rows
            : static_cast<double>(layer.rows_of(tower)) * static_cast<double>(towers.size());
    sum += Squares(MakeBatch(layer, factor, step, tower)) / divisor;
  }
  return sum;
}

std::vector<Matrix<double>> Sums(const Layer& layer, std::string_view factor,
                                 const std::vector<std::vector<int>>& counted,
                                 v1::TowerWeighting weighting) {
  std::vector<Matrix<double>> sums = {Matrix<double>::Zero(layer.inputs + 1, layer.outputs)};
  for (size_t i = 0; i < counted.size(); ++i) {
    const auto step = static_cast<int64_t>(i + 1);
    sums.push_back(sums.back() + StepSum(layer, factor, step, counted[i], weighting));
  }
  return sums;
}

std::vector<Matrix<double>> WholeSums(const Layer& layer, std::string_view factor, int64_t steps,
                                      int towers) {
  std::vector<int> all(static_cast<size_t>(towers));
  for (int tower = 0; tower < towers; ++tower) all[static_cast<size_t>(tower)] = tower;
  return Sums(layer, factor, {static_cast<size_t>(steps), all});
}

}  // namespace fisherd::faults
