// The durability interface: what factors hand over as their steps end, and get back after a
// restart.

#ifndef FISHERD_CORE_FACTOR_STORE_H_
#define FISHERD_CORE_FACTOR_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/commit_record.h"
#include "core/factor_spec.h"
#include "core/ledger.h"
#include "core/matrix.h"
#include "core/step_gather.h"

namespace fisherd::core {

// A factor at the end of a step: all that makes it what it is, but its registrations.
struct FactorImage {
  std::string name;
  FactorSpec spec;
  Version version;
  double total_weight = 0;
  double bound = 0;  // of every element
  uint64_t label = 0;
  TowerPlan plan{1};              // under ASYNCHRONOUS how many towers there are now
  std::vector<Ledger> ledgers;    // one; under ASYNCHRONOUS one for each tower
  const Matrix* state = nullptr;  // lives as long as the call that it is given to
};

// Thread-safe. Called without locks, from pool threads, in the order of each factor's steps.
class FactorStore {
 public:
  virtual ~FactorStore() = default;

  // A step was not whole. When it returns the record is on disk, so that it survives a rollback:
  // nobody is told before. `ledger` is the index of the ledger that it belongs to.
  virtual void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                             const StepRun& run) = 0;

  // A step has ended. True if all that has ended is on disk now.
  virtual bool StepEnded(const FactorImage& image) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_STORE_H_
