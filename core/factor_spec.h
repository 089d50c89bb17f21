// What a factor is, fixed at its creation.

#ifndef FISHERD_CORE_FACTOR_SPEC_H_
#define FISHERD_CORE_FACTOR_SPEC_H_

#include <cstdint>
#include <variant>

#include "core/tensor.h"

namespace fisherd::core {

enum class TowerWeighting { kTowerMean, kExampleWeighted };
enum class InitialCovariance { kZeros, kOnes };

// Sizes of a fully-connected layer, for kinds/fully_connected_diagonal.
struct FullyConnectedDiagonalSpec {
  int64_t input_size = 0;
  int64_t output_size = 0;
  bool has_bias = false;

  bool operator==(const FullyConnectedDiagonalSpec&) const = default;
};

// One alternative per kind; monostate is "not given". A new kind adds its alternative here and its
// maker to the table in kinds/kinds.cc.
using KindSpec = std::variant<std::monostate, FullyConnectedDiagonalSpec>;

struct FactorSpec {
  KindSpec kind;
  int towers = 1;
  int sources = 1;
  DataType dtype = DataType::kFloat32;  // FLOAT32 or FLOAT64
  TowerWeighting tower_weighting = TowerWeighting::kTowerMean;
  bool zero_debias = true;
  InitialCovariance initial_covariance = InitialCovariance::kZeros;  // ZEROS if zero_debias

  bool operator==(const FactorSpec&) const = default;
};

// The most towers and sources that a factor may have.
inline constexpr int kMaxTowers = 4096;
inline constexpr int kMaxSources = 4096;

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_SPEC_H_
