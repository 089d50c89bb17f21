// Batches of small integers, whose covariances add up without rounding: one that is lost or counted
// twice shows in the bits, whatever the order was.

#ifndef FISHERD_TESTS_FAULTS_EXACT_BATCHES_H_
#define FISHERD_TESTS_FAULTS_EXACT_BATCHES_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fisherd/client.h"

namespace fisherd::faults {

// A layer with a bias. The sums are exact if every divisor that occurs (rows times towers, or the
// rows of all towers) is a power of two.
struct Layer {
  int64_t inputs = 12;
  int64_t outputs = 5;
  std::array<int64_t, 4> rows = {4, 4, 4, 4};  // of towers 0 to 3, and so on in turn

  int64_t rows_of(int tower) const { return rows[static_cast<size_t>(tower) % rows.size()]; }
};

// Plain accumulation.
inline constexpr StepOptions kAccumulate = {.decay = 1, .weight = 1};

struct ExactBatch {
  Matrix<float> inputs;
  Matrix<float> grads;

  Batch view() const { return {.inputs = inputs, .outputs_grads = {grads}}; }
};

// The batch of a step and a tower: always the same one.
ExactBatch MakeBatch(const Layer& layer, std::string_view factor, int64_t step, int tower);

// What a step over `towers` adds to the covariance.
Matrix<double> StepSum(const Layer& layer, std::string_view factor, int64_t step,
                       const std::vector<int>& towers,
                       v1::TowerWeighting weighting = v1::TOWER_WEIGHTING_TOWER_MEAN);

// A factor's covariances after its steps 1, 2, …, of which `counted` says the towers; [0] is that
// before the first.
std::vector<Matrix<double>> Sums(const Layer& layer, std::string_view factor,
                                 const std::vector<std::vector<int>>& counted,
                                 v1::TowerWeighting weighting = v1::TOWER_WEIGHTING_TOWER_MEAN);
// All towers in every step.
std::vector<Matrix<double>> WholeSums(const Layer& layer, std::string_view factor, int64_t steps,
                                      int towers);

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_EXACT_BATCHES_H_
