#include "client/trainer/tuning.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/trainer/natural_gradient.h"

namespace fisherd::trainer {
namespace {

// Runs of one trial. Both towers get them; only tower 0's say anything.
absl::StatusOr<std::vector<RunResult>> TrainSeeds(const Method& method, const Examples& digits,
                                                  Workplace& workplace) {
  std::vector<RunResult> runs;
  for (uint32_t seed : kTuningSeeds) {
    workplace.seed = seed;
    workplace.split = SplitExamples(digits, kTrainSize, seed);
    absl::StatusOr<RunResult> run = Train(method, workplace);
    if (!run.ok()) return run.status();
    runs.push_back(*std::move(run));
  }
  return runs;
}

}  // namespace

double Score(std::span<const RunResult> runs) {
  double worst = 0;
  for (const RunResult& run : runs) {
    if (run.diverged) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, run.epochs.back().train.loss);
  }
  return worst;
}

absl::Status Tune(const Examples& digits, Workplace& workplace) {
  workplace.prove = false;
  const std::vector<Method> tuned = TunedMethods();
  const std::vector<std::vector<Method>> grids = Grids();
  const bool speaks = workplace.link.tower() == 0;
  for (size_t grid = 0; grid < grids.size(); ++grid) {
    if (speaks)
      absl::PrintF("\n%s: training loss after %d epochs, worst of the seeds\n", tuned[grid].name,
                   workplace.epochs);
    double best_score = std::numeric_limits<double>::infinity();
    std::string best;
    for (const Method& method : grids[grid]) {
      absl::StatusOr<std::vector<RunResult>> runs = TrainSeeds(method, digits, workplace);
      if (!runs.ok()) return runs.status();
      if (!speaks) continue;
      const double score = Score(*runs);
      absl::PrintF("  %9.2g  %s\n", score, Settings(method));
      std::fflush(stdout);
      if (score < best_score) {
        best_score = score;
        best = Settings(method);
      }
    }
    if (!speaks) continue;
    absl::PrintF("  best: %s%s\n", best,
                 best == Settings(tuned[grid]) ? ", as in method.cc"
                                               : "; method.cc has " + Settings(tuned[grid]));
  }
  return absl::OkStatus();
}

}  // namespace fisherd::trainer
