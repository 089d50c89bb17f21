// What the demo says at its end.

#ifndef FISHERD_TRAINER_REPORT_H_
#define FISHERD_TRAINER_REPORT_H_

#include <span>
#include <string>

#include "client/trainer/training.h"

namespace fisherd::trainer {

// Loss and test accuracy by epoch, a column for each run, and what a step took.
std::string ResultTable(std::span<const RunResult> runs);

// The largest relative difference that float32 sums explain with room to spare.
inline constexpr double kTolerance = 1e-5;

// False if a served Fisher is not the one recomputed, an entry of a dark pixel is not 0, or no run
// has a proof.
bool Proven(std::span<const RunResult> runs);

// How the served Fishers compare with those recomputed.
std::string ProofText(std::span<const RunResult> runs);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_REPORT_H_
