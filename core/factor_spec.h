// What a factor is, fixed at its creation.

#ifndef FISHERD_CORE_FACTOR_SPEC_H_
#define FISHERD_CORE_FACTOR_SPEC_H_

#include <cstdint>
#include <optional>
#include <variant>

#include "absl/time/time.h"
#include "core/tensor.h"

namespace fisherd::core {

enum class TowerWeighting { kTowerMean, kExampleWeighted };
enum class InitialCovariance { kZeros, kOnes };
enum class UpdateMode { kSynchronous, kAsynchronous };
enum class GatherPolicy { kFail, kPartial };
// What `durable` promises (SPEC §5); kUnset: what the registry says.
enum class DurabilityLevel { kUnset, kMemory, kSnapshot, kSync };

// Where the state lives and steps are computed; kAny: as the server decides, anew at each start.
enum class BackendChoice { kAny, kCpu, kCuda };

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
  int towers = 1;  // at its creation
  int sources = 1;
  DataType dtype = DataType::kFloat32;  // FLOAT32 or FLOAT64
  TowerWeighting tower_weighting = TowerWeighting::kTowerMean;
  bool zero_debias = true;
  InitialCovariance initial_covariance = InitialCovariance::kZeros;  // ZEROS if zero_debias
  UpdateMode update_mode = UpdateMode::kSynchronous;
  GatherPolicy gather_policy = GatherPolicy::kFail;
  absl::Duration gather_timeout = absl::ZeroDuration();  // 0: the registry's
  int window = 0;                                        // open steps, to kMaxWindow; 0 likewise
  DurabilityLevel durability = DurabilityLevel::kUnset;
  BackendChoice backend = BackendChoice::kAny;

  bool operator==(const FactorSpec&) const = default;
};

// The most towers, sources and open steps that a factor may have.
inline constexpr int kMaxTowers = 4096;
inline constexpr int kMaxSources = 4096;
inline constexpr int kMaxWindow = 1024;

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_SPEC_H_
