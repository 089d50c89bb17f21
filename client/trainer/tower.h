// A trainer process: one of the two towers.

#ifndef FISHERD_TRAINER_TOWER_H_
#define FISHERD_TRAINER_TOWER_H_

#include "absl/status/status.h"
#include "client/trainer/options.h"

namespace fisherd::trainer {

// Trains all methods, or all trials of the grids, beside the other tower at the end of
// options.link. Tower 0 prints what came of it and writes the picture. FAILED_PRECONDITION if the
// towers' parameters or a served Fisher are not as they must be.
absl::Status RunTower(const Options& options);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_TOWER_H_
