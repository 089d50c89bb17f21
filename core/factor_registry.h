// The factors of one server, by name.

#ifndef FISHERD_CORE_FACTOR_REGISTRY_H_
#define FISHERD_CORE_FACTOR_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/damping_table.h"
#include "core/factor.h"
#include "core/mutex.h"
#include "core/placement.h"
#include "core/watch_hub.h"

namespace fisherd::core {

struct RegistryOptions {
  Backend* backend = nullptr;  // the host's
  ComputePool* pool = nullptr;
  int64_t state_budget = 0;                                          // bytes of the host's memory
  std::vector<BackendMemory> devices;                                // beside it
  BackendChoice usual_backend = BackendChoice::kAny;                 // see Placement
  int64_t batch_budget = 0;                                          // bytes
  int64_t factor_batch_limit = std::numeric_limits<int64_t>::max();  // of it, for one factor
  double small_work = 0;                                             // see FactorEnvironment
  // What a specification leaves open.
  int window = 4;
  absl::Duration gather_timeout = absl::InfiniteDuration();
  TimerQueue* timers = nullptr;
  FactorStore* store = nullptr;                           // null: nothing survives
  DurabilityLevel durability = DurabilityLevel::kMemory;  // of who does not say
  absl::Duration recovery_timeout = absl::Minutes(10);
  // The server's start number, and the first incarnation that it gives; neither is ever reused.
  uint64_t epoch = 0;
  uint64_t first_incarnation = 1;
};

// Thread-safe. Must outlive its factors and what they scheduled on the pool: destroy the pool
// first.
//
// Whatever changes what a factor is (all but its steps) comes through here: one change at a time
// for each name, and it is on disk before it is answered. Such a call may take as long as a disk
// does, and fails as FactorStore::CheckWritable says.
class FactorRegistry {
 public:
  explicit FactorRegistry(const RegistryOptions& options);

  struct Created {
    std::shared_ptr<Factor> factor;
    bool created = false;
  };
  // ALREADY_EXISTS (SPEC_DIFFERS) if the name has another specification; FAILED_PRECONDITION
  // (NO_DATA_DIRECTORY) for a level that needs one.
  absl::StatusOr<Created> Create(std::string_view name, FactorSpec spec);

  // After a restart, before anyone else knows of the registry: a factor as it was, of an
  // incarnation below first_incarnation.
  absl::Status Restore(const FactorImage& image, const Factor::StateFill& fill);
  // A factor whose state cannot be had: `why` is what every call for it answers, until it is
  // deleted or Put.
  void Quarantine(std::string_view name, absl::Status why);

  // Makes a factor what `make` gives it, which has put it on disk: a saved one, under the
  // incarnation that it is told. There may be none of that name yet (or a quarantined one), or one
  // of the same specification, which keeps its registrations.
  //   ALREADY_EXISTS (SPEC_DIFFERS); RESOURCE_EXHAUSTED (STATE_BUDGET)
  struct Content {
    FactorImage image;
    std::unique_ptr<Matrix> state;
  };
  using Maker = std::function<absl::StatusOr<Content>(uint64_t incarnation)>;
  absl::StatusOr<std::shared_ptr<Factor>> Put(std::string_view name, const FactorSpec& spec,
                                              const Maker& make);

  // INVALID_ARGUMENT (BAD_NAME), NOT_FOUND (FACTOR_NOT_FOUND), DATA_LOSS (STATE_DAMAGED).
  absl::StatusOr<std::shared_ptr<Factor>> Find(std::string_view name) const;

  // The first `limit` factors, in byte order of their names, that start with `prefix` and come
  // after `after`.
  std::vector<std::shared_ptr<Factor>> List(std::string_view prefix, std::string_view after,
                                            size_t limit) const;

  absl::Status Delete(std::string_view name);
  absl::StatusOr<std::shared_ptr<Factor>> Reset(std::string_view name);
  // As the methods of Factor, and DampingTable.
  absl::StatusOr<int64_t> SetTowers(std::string_view name, int towers, bool now);
  absl::StatusOr<RegistrationInfo> Register(std::string_view name, const OperatorSpec& op,
                                            const RefreshPolicy& policy);
  absl::Status Unregister(std::string_view name, const OperatorSpec& op);
  absl::Status SetDamping(std::string_view name, double value);
  absl::Status DeleteDamping(std::string_view name);
  // See FactorStore::WantDurable.
  void WantDurable(const std::string& name) const;

  // To be read; what is set here is not stored.
  DampingTable& dampings() { return dampings_; }
  const DampingTable& dampings() const { return dampings_; }
  WatchHub& watchers() { return watchers_; }
  uint64_t epoch() const { return environment_.epoch; }
  Activity& activity() { return activity_; }
  const Activity& activity() const { return activity_; }
  // How many factors are quarantined.
  size_t damaged() const;
  const ByteBudget& state_budget() const { return placement_.host().budget; }
  const Placement& placement() const { return placement_; }
  const ByteBudget& batch_budget() const { return batch_budget_; }

 private:
  // Its holder alone changes what the name stands for.
  class NameHold;

  // The name must be held.
  absl::Status RecordFactor(const FactorImage& image) const;
  absl::Status CheckWritable() const;
  absl::StatusOr<FactorSpec> Complete(FactorSpec spec) const;
  // With the backend that the factor gets; `again`: it was there before.
  absl::StatusOr<FactorEnvironment> EnvironmentFor(const FactorSpec& spec, bool again);
  uint64_t NextIncarnation();
  std::shared_ptr<Factor> FindOrNull(std::string_view name) const;

  DampingTable dampings_;
  Placement placement_;
  ByteBudget batch_budget_;
  WatchHub watchers_;
  Activity activity_;
  const FactorEnvironment environment_;
  const int window_;
  const absl::Duration gather_timeout_;
  const DurabilityLevel durability_;

  Mutex damping_order_;  // held while a damping is stored: the table's order is the disk's
  mutable Mutex mutex_;
  CondVar released_;
  std::set<std::string, std::less<>> held_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, absl::Status, std::less<>> quarantined_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_incarnation_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Factor>, std::less<>> factors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_REGISTRY_H_
