// The main job: starts a server and two trainer processes, and tells a person what happens.

#ifndef FISHERD_TRAINER_DEMO_H_
#define FISHERD_TRAINER_DEMO_H_

#include "absl/status/status.h"
#include "client/trainer/options.h"

namespace fisherd::trainer {

// Runs the demo, or the tuning if options.command says so. Everything it started has ended when it
// returns.
absl::Status RunDemo(const Options& options);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_DEMO_H_
