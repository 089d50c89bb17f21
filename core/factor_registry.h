// The factors of one server, by name.

#ifndef FISHERD_CORE_FACTOR_REGISTRY_H_
#define FISHERD_CORE_FACTOR_REGISTRY_H_

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/damping_table.h"
#include "core/factor.h"
#include "core/mutex.h"
#include "core/watch_hub.h"

namespace fisherd::core {

struct RegistryOptions {
  Backend* backend = nullptr;
  ComputePool* pool = nullptr;
  int64_t state_budget = 0;                                          // bytes
  int64_t batch_budget = 0;                                          // bytes
  int64_t factor_batch_limit = std::numeric_limits<int64_t>::max();  // of it, for one factor
  double small_work = 0;                                             // see FactorEnvironment
  // What a specification leaves open.
  int window = 4;
  absl::Duration gather_timeout = absl::InfiniteDuration();
  TimerQueue* timers = nullptr;
  FactorStore* store = nullptr;  // null: nothing survives
  absl::Duration recovery_timeout = absl::Minutes(10);
  // The server's start number, and the first incarnation that it gives: without a data directory
  // both start from the clock, so that neither is reused over restarts.
  uint64_t epoch = 0;
  uint64_t first_incarnation = 1;
};

// Thread-safe. Must outlive its factors and what they scheduled on the pool: destroy the pool
// first.
class FactorRegistry {
 public:
  explicit FactorRegistry(const RegistryOptions& options);

  struct Created {
    std::shared_ptr<Factor> factor;
    bool created = false;
  };
  // ALREADY_EXISTS (SPEC_DIFFERS) if the name has another specification.
  absl::StatusOr<Created> Create(std::string_view name, FactorSpec spec);

  // After a restart, before anyone else knows of the registry: a factor as it was, of an
  // incarnation below first_incarnation.
  absl::Status Restore(const FactorImage& image);

  // INVALID_ARGUMENT (BAD_NAME), NOT_FOUND (FACTOR_NOT_FOUND).
  absl::StatusOr<std::shared_ptr<Factor>> Find(std::string_view name) const;

  // The first `limit` factors, in byte order of their names, that start with `prefix` and come
  // after `after`.
  std::vector<std::shared_ptr<Factor>> List(std::string_view prefix, std::string_view after,
                                            size_t limit) const;

  absl::Status Delete(std::string_view name);
  absl::StatusOr<std::shared_ptr<Factor>> Reset(std::string_view name);

  DampingTable& dampings() { return dampings_; }
  WatchHub& watchers() { return watchers_; }
  uint64_t epoch() const { return environment_.epoch; }
  const ByteBudget& state_budget() const { return state_budget_; }
  const ByteBudget& batch_budget() const { return batch_budget_; }

 private:
  DampingTable dampings_;
  ByteBudget state_budget_;
  ByteBudget batch_budget_;
  WatchHub watchers_;
  const FactorEnvironment environment_;
  const int window_;
  const absl::Duration gather_timeout_;

  mutable Mutex mutex_;
  uint64_t next_incarnation_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Factor>, std::less<>> factors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_REGISTRY_H_
