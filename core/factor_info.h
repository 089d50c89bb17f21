// What is asked of a factor, and what it says of itself.

#ifndef FISHERD_CORE_FACTOR_INFO_H_
#define FISHERD_CORE_FACTOR_INFO_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/commit_record.h"
#include "core/factor_spec.h"
#include "core/linear_operator.h"
#include "core/matrix.h"
#include "core/registered_results.h"

namespace fisherd::core {

// Waits until `step` of `incarnation` has ended.
struct MinVersion {
  uint64_t incarnation = 0;
  int64_t step = 0;
};

struct ReadRequest {
  OperatorSpec op;
  DataType dtype = DataType::kUnspecified;  // of the elements wanted; the state's if unspecified
  std::optional<Version> if_version_not;
  std::optional<MinVersion> min_version;
  // A registered result is computed anew unless it is of the current version and λ, whatever its
  // policy.
  bool refresh = false;
};

struct ReadResult {
  Version version;          // that the operator reflects
  Version current_version;  // of the factor when it was answered
  int64_t steps_committed = 0;
  int64_t next = 1;
  double total_weight = 0;
  std::optional<double> damping;  // absent for the covariance
  bool cached = false;
  // Null if the version is the one that if_version_not named. Holding it pins the version.
  std::shared_ptr<const LinearOperator> op;
};

using ReadCallback = std::function<void(absl::StatusOr<ReadResult>)>;

struct RegistrationInfo {
  OperatorSpec op;
  RefreshPolicy policy;
  std::optional<Version> computed_from;
  std::optional<double> damping;
};

struct TowerInfo {
  bool claimed = false;
  int64_t received_through = 0;
};

struct FactorInfo {
  std::string name;
  FactorSpec spec;
  MatrixShape shape;
  std::string backend;  // its name
  Version version;
  int64_t steps_committed = 0;
  int64_t steps_failed = 0;
  int64_t steps_partial = 0;
  int64_t next = 1;
  int64_t durable = 0;
  int64_t open_through = 0;
  double total_weight = 0;
  uint64_t label = 0;
  // When a step last changed the state, by the monotonic clock; never: InfinitePast.
  absl::Time updated = absl::InfinitePast();
  int64_t state_bytes = 0;
  int64_t pinned_bytes = 0;
  int64_t result_bytes = 0;
  int64_t estimated_bytes = 0;
  int held_batches = 0;
  int64_t held_bytes = 0;
  std::vector<TowerInfo> towers;
  std::vector<RegistrationInfo> registrations;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_INFO_H_
