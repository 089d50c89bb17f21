// One method's training run, as one of two towers lives it.

#ifndef FISHERD_TRAINER_TRAINING_H_
#define FISHERD_TRAINER_TRAINING_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "client/trainer/data.h"
#include "client/trainer/fisher_check.h"
#include "client/trainer/method.h"
#include "client/trainer/network.h"
#include "client/trainer/tower_link.h"
#include "fisherd/client.h"

namespace fisherd::trainer {

inline constexpr int kWidths[] = {64, 128, 64, 10};
inline constexpr int kBatch = 128;       // examples per step, half of them for each tower
inline constexpr int kTrainSize = 1408;  // 11 batches; the other 389 examples are the test set

// What all runs of a process share.
struct Workplace {
  TowerLink& link;
  Client& client;
  Split split;
  int epochs = 0;
  uint32_t seed = 0;
  // Also recompute the Fisher in tower 0.
  bool prove = true;
  // Called by tower 0 after every epoch.
  std::function<void(const Method&, int epoch, const Evaluation& train)> on_epoch = {};
};

struct Epoch {
  Evaluation train;
  Evaluation test;
};

// How a layer's served Fisher compares with the one recomputed.
struct LayerProof {
  std::string factor;
  Comparison comparison;
  double batch_mean_share = 0;
};

// Tower 0's; tower 1 has only `diverged`.
struct RunResult {
  Method method;
  std::vector<Epoch> epochs;  // the first is before training
  int steps = 0;
  double seconds_per_step = 0;    // without evaluation and proof
  double seconds_in_rpc = 0;      // of those
  std::vector<LayerProof> proof;  // of a method with curvature
  bool diverged = false;          // parameters became infinite or NaN; the run ended there
};

// Trains from the start and in the order of batches that the seed says, the same for every method.
// FAILED_PRECONDITION if the towers' parameters are not the same bits after every epoch.
absl::StatusOr<RunResult> Train(const Method& method, const Workplace& workplace);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_TRAINING_H_
