// Chooses the methods' settings, by the same number of trials for each.

#ifndef FISHERD_TRAINER_TUNING_H_
#define FISHERD_TRAINER_TUNING_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "client/trainer/training.h"

namespace fisherd::trainer {

// Seeds of the trials, other than the demo's.
inline constexpr uint32_t kTuningSeeds[] = {101, 102, 103};

// Trains every trial of the grids, once per seed. Tower 0 prints each one's score (see Grids), the
// best of each grid, and whether it is the one that TunedMethods has.
absl::Status Tune(const Examples& digits, Workplace& workplace);

// Of runs of one trial: the largest training loss after the last epoch, infinite if one diverged.
double Score(std::span<const RunResult> runs);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_TUNING_H_
