// Damping functions: named values that trainers set and the server reads when it computes.

#ifndef FISHERD_CORE_DAMPING_TABLE_H_
#define FISHERD_CORE_DAMPING_TABLE_H_

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/linear_operator.h"
#include "core/mutex.h"

namespace fisherd::core {

// Thread-safe.
class DampingTable {
 public:
  // INVALID_ARGUMENT for a bad name or a λ that is not finite or negative.
  static absl::Status Check(std::string_view name, double value);
  absl::Status Set(std::string_view name, double value);
  // NOT_FOUND (DAMPING_NOT_FOUND).
  absl::StatusOr<double> Get(std::string_view name) const;
  absl::Status Delete(std::string_view name);

  // λ of either form.
  absl::StatusOr<double> Resolve(const Damping& damping) const;

  // The first `limit` names, in byte order, that start with `prefix` and come after `after`.
  std::vector<std::pair<std::string, double>> List(std::string_view prefix, std::string_view after,
                                                   size_t limit) const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, double, std::less<>> values_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_DAMPING_TABLE_H_
