// The durability interface: what factors and their registry hand over as things happen, and get
// back after a restart.

#ifndef FISHERD_CORE_FACTOR_STORE_H_
#define FISHERD_CORE_FACTOR_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/batch_header.h"
#include "core/commit_record.h"
#include "core/factor_spec.h"
#include "core/ledger.h"
#include "core/matrix.h"
#include "core/registered_results.h"
#include "core/tower_plan.h"

namespace fisherd::core {

class Factor;

// A factor between two steps: all that makes it what it is.
struct FactorImage {
  std::string name;
  FactorSpec spec;
  Version version;
  double total_weight = 0;
  double bound = 0;  // of every element
  uint64_t label = 0;
  TowerPlan plan{1};            // under ASYNCHRONOUS how many towers there are now
  std::vector<Ledger> ledgers;  // one; under ASYNCHRONOUS one for each tower
  std::vector<SavedResult> results;
  // Keeps the version that it is of; null where only the rest is asked for.
  std::shared_ptr<const Matrix> state;

  // What the state's elements are divided by to be the covariance.
  double divisor() const { return spec.zero_debias && total_weight > 0 ? total_weight : 1; }

  // Steps that have ended, of all ledgers.
  int64_t ended() const {
    int64_t steps = 0;
    for (const Ledger& ledger : ledgers) steps += ledger.next() - 1;
    return steps;
  }
};

// A step of a factor at level SYNC, as its log keeps it: in the order in which they ended.
struct StepRecord {
  std::string factor;
  uint64_t incarnation = 0;
  int ledger = 0;
  StepRun run;        // of this one step; WHOLE ones too
  int64_t ended = 0;  // of the factor's steps, with this one
  // Unless FAILED: what the state became,
  Version version;
  double total_weight = 0;
  double bound = 0;
  uint64_t label = 0;
  const Matrix* state = nullptr;
  // or, where they are smaller, what made it so of the state before (Kind::SaveBatch): one for each
  // tower that counted.
  StepParameters parameters;
  std::vector<std::string> batches;
};

// Thread-safe. Called without the factor's lock. What returns a status has reached the disk when it
// is OK, and has changed nothing otherwise; it may take as long as a disk does.
class FactorStore {
 public:
  // Called once, from any thread, when the record is on disk; not OK if it never will be.
  using Done = std::function<void(absl::Status)>;

  virtual ~FactorStore() = default;

  // Whether anything can be stored now. RESOURCE_EXHAUSTED (DISK_FULL) until there is space;
  // FAILED_PRECONDITION (DISK_FAILED) for good. Never waits; may be called with any locks held.
  virtual absl::Status CheckWritable() const = 0;

  // --- The life of factors and dampings, from the registry: one call at a time for one name ---

  // What a factor is from here on: its specification, incarnation, plan and registrations, not its
  // state. Under a new incarnation it has the initial state, and step 1 comes next.
  virtual absl::Status RecordFactor(const FactorImage& image) = 0;
  virtual absl::Status RecordDeletion(std::string_view name) = 0;
  // nullopt: deleted.
  virtual absl::Status RecordDamping(std::string_view name, std::optional<double> value) = 0;

  // --- Steps, from the pool, in the order of each factor's steps ---

  // A step was not whole: nobody is told before the record is on disk, so that it survives a
  // rollback. `ledger` is the index of the ledger that it belongs to.
  virtual void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                             const StepRun& run, Done done) = 0;
  // Level SYNC: nobody is told of the step before it is in the log. What the record points to lives
  // until `done`.
  virtual void LogStep(StepRecord record, Done done) = 0;
  // A step has ended, and the next has not begun to: the factor gives an image now. Durability that
  // is reached later is told to Factor::SetDurable.
  virtual void StepEnded(const std::shared_ptr<Factor>& factor) = 0;

  // A trainer holds half of what it can of batches that are not durable: the factor's state should
  // be saved soon.
  virtual void WantDurable(const std::string& factor) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_STORE_H_
