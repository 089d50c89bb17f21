#include "client/trainer/tower.h"

#include <cstdio>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/trainer/natural_gradient.h"
#include "client/trainer/progress.h"
#include "client/trainer/report.h"
#include "client/trainer/svg.h"
#include "client/trainer/training.h"
#include "client/trainer/tuning.h"

namespace fisherd::trainer {
namespace {

absl::StatusOr<RunResult> TrainWithProgress(const Method& method, Workplace& workplace) {
  Progress progress(stdout, method.name);
  workplace.on_epoch = [&](const Method&, int epoch, const Evaluation& train) {
    progress.Update(epoch, workplace.epochs, absl::StrFormat("training loss %.2g", train.loss));
  };
  absl::StatusOr<RunResult> run = Train(method, workplace);
  workplace.on_epoch = {};
  if (!run.ok() || workplace.link.tower() != 0) return run;
  progress.Clear();
  absl::PrintF("  %-14s %d steps of %.2f ms; training loss %.2g, test accuracy %.1f %%\n",
               method.name, run->steps, 1e3 * run->seconds_per_step, run->epochs.back().train.loss,
               100 * run->epochs.back().test.accuracy);
  std::fflush(stdout);
  return run;
}

absl::Status WritePicture(const std::string& path, std::span<const RunResult> runs) {
  std::ofstream file(path);
  file << CurvesSvg(runs);
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat("cannot write \"", path, "\""));
  absl::PrintF("\nCurves: %s\n", path);
  return absl::OkStatus();
}

absl::Status RunMethods(const Options& options, Workplace& workplace) {
  std::vector<RunResult> runs;
  for (const Method& method : TunedMethods()) {
    absl::StatusOr<RunResult> run = TrainWithProgress(method, workplace);
    if (!run.ok()) return run.status();
    runs.push_back(*std::move(run));
  }
  if (options.tower != 0) return absl::OkStatus();
  absl::PrintF("\nResults\n\n%s\nIs the served Fisher right?\n\n%s", ResultTable(runs),
               ProofText(runs));
  if (absl::Status status = WritePicture(options.out + "/curves.svg", runs); !status.ok()) {
    return status;
  }
  if (Proven(runs)) return absl::OkStatus();
  return absl::FailedPreconditionError("the served Fisher is not the one recomputed, see above");
}

}  // namespace

absl::Status RunTower(const Options& options) {
  TowerLink link(options.link, options.tower);
  absl::StatusOr<Examples> digits = ReadDigits(options.data);
  if (!digits.ok()) return digits.status();
  if (digits->size() <= kTrainSize) {
    return absl::DataLossError(absl::StrCat(options.data, " has ", digits->size(),
                                            " examples; more than ", kTrainSize, " are needed"));
  }
  absl::StatusOr<Client> client = Client::Connect(options.server);
  if (!client.ok()) return client.status();
  Workplace workplace = {.link = link,
                         .client = *client,
                         .split = SplitExamples(*digits, kTrainSize, options.seed),
                         .epochs = options.epochs,
                         .seed = options.seed};
  return options.tune ? Tune(*digits, workplace) : RunMethods(options, workplace);
}

}  // namespace fisherd::trainer
