// What happened to a step: one record per ended step, in order. Acknowledgements, registered
// results and whoever watches only read it.

#ifndef FISHERD_CORE_COMMIT_RECORD_H_
#define FISHERD_CORE_COMMIT_RECORD_H_

#include <cstdint>

namespace fisherd::core {

// Names one content of a factor (SPEC §3): two contents never share a version.
struct Version {
  uint64_t incarnation = 0;
  uint64_t epoch = 0;  // of the server that committed `step`
  int64_t step = 0;    // the last committed step

  bool operator==(const Version&) const = default;
};

enum class StepOutcome { kWhole, kFailed, kPartial };

struct CommitRecord {
  int64_t step = 0;
  StepOutcome outcome = StepOutcome::kWhole;
  Version version;  // after the step
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_COMMIT_RECORD_H_
