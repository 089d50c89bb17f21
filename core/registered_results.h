// Results that a factor keeps computed (SPEC §4).

#ifndef FISHERD_CORE_REGISTERED_RESULTS_H_
#define FISHERD_CORE_REGISTERED_RESULTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/byte_budget.h"
#include "core/commit_record.h"
#include "core/linear_operator.h"
#include "core/matrix.h"

namespace fisherd::core {

enum class RefreshKind { kOnRead, kEveryNSteps, kOnRequest };

struct RefreshPolicy {
  RefreshKind kind = RefreshKind::kOnRead;
  int64_t steps = 0;  // kEveryNSteps: N ≥ 1

  bool operator==(const RefreshPolicy&) const = default;
};

// A computed result. Immutable; readers share it.
struct CachedResult {
  std::unique_ptr<Matrix> matrix;
  Version version;  // of the covariance that it was computed from
  double total_weight = 0;
  double damping = 0;
  ByteGrant extra;  // taken if a reader still had the result before it
};

// One registered operator and its cache.
struct Registration {
  OperatorSpec op;  // damping by name
  RefreshPolicy policy;
  ByteGrant reserve;  // for one result
  std::shared_ptr<const CachedResult> cached;
  bool computing = false;  // readers wait for the result instead of computing it too
};

// A registration as it is saved and brought back.
struct SavedResult {
  OperatorSpec op;
  RefreshPolicy policy;
  std::shared_ptr<const CachedResult> cached;  // null: not computed
};

// The registrations of one factor, guarded by its lock. Matpower 1 is registered like the others
// but never cached.
class RegisteredResults {
 public:
  // Adds, or changes the policy of the same operator and damping name.
  std::shared_ptr<Registration> Add(const OperatorSpec& op, const RefreshPolicy& policy,
                                    ByteGrant reserve);
  // Null if it is not registered.
  std::shared_ptr<Registration> Find(const OperatorSpec& op) const;
  bool Remove(const OperatorSpec& op);

  const std::vector<std::shared_ptr<Registration>>& all() const { return registrations_; }

  // Empties every cache.
  void Invalidate();

 private:
  std::vector<std::shared_ptr<Registration>> registrations_;  // few: searched in order
};

// False for matpower 1.
bool IsCached(const OperatorSpec& op);

// Whether a cached result answers a read of `current` with `damping`.
bool IsFresh(const Registration& registration, const Version& current, double damping);

// Whether the policy asks for a result once `steps_committed` steps have committed.
bool IsDue(const Registration& registration, int64_t steps_committed);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_REGISTERED_RESULTS_H_
