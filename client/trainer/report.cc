#include "client/trainer/report.h"

#include <algorithm>
#include <functional>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace fisherd::trainer {
namespace {

constexpr int kColumn = 17;

void AppendRow(std::string& text, std::string_view heading, std::span<const RunResult> runs,
               const std::function<std::string(const RunResult&)>& cell) {
  absl::StrAppendFormat(&text, "  %-10s", heading);
  for (const RunResult& run : runs) absl::StrAppendFormat(&text, "%*s", kColumn, cell(run));
  text += '\n';
}

// First and last, and those between that a person wants to see.
std::vector<int> EpochsToShow(int last) {
  std::set<int> epochs = {0, last};
  for (int decade = 1; decade < last; decade *= 10) {
    for (int factor : {1, 2, 5}) {
      if (factor * decade < last) epochs.insert(factor * decade);
    }
  }
  return {epochs.begin(), epochs.end()};
}

}  // namespace

std::string ResultTable(std::span<const RunResult> runs) {
  std::string text;
  AppendRow(text, "", runs, [](const RunResult& run) { return run.method.name; });
  AppendRow(text, "rate", runs,
            [](const RunResult& run) { return absl::StrFormat("%g", run.method.learning_rate); });
  AppendRow(text, "momentum", runs, [](const RunResult& run) {
    return run.method.momentum > 0 ? absl::StrFormat("%g", run.method.momentum) : "-";
  });
  AppendRow(text, "damping", runs, [](const RunResult& run) {
    return run.method.curvature ? absl::StrFormat("%g", run.method.curvature->damping) : "-";
  });
  text += "\n  epoch     training loss, test accuracy\n";
  size_t longest = 1;
  for (const RunResult& run : runs) longest = std::max(longest, run.epochs.size());
  for (int epoch : EpochsToShow(static_cast<int>(longest) - 1)) {
    AppendRow(text, absl::StrCat(epoch), runs, [epoch](const RunResult& run) -> std::string {
      if (epoch >= std::ssize(run.epochs)) return "diverged";
      const Epoch& shown = run.epochs[epoch];
      return absl::StrFormat("%.2g %5.1f %%", shown.train.loss, 100 * shown.test.accuracy);
    });
  }
  text += '\n';
  AppendRow(text, "per step", runs, [](const RunResult& run) {
    return absl::StrFormat("%.2f ms", 1e3 * run.seconds_per_step);
  });
  AppendRow(text, "in all", runs, [](const RunResult& run) {
    return absl::StrFormat("%.2f s", run.seconds_per_step * run.steps);
  });
  AppendRow(text, "in RPC", runs, [](const RunResult& run) -> std::string {
    if (run.seconds_in_rpc == 0) return "-";
    return absl::StrFormat("%.0f %%", 100 * run.seconds_in_rpc / run.seconds_per_step);
  });
  text +=
      "\n  Times are tower 0's, with its waiting for the other tower and for the server, without\n"
      "  evaluation and proof.\n";
  return text;
}

bool Proven(std::span<const RunResult> runs) {
  bool any = false;
  for (const RunResult& run : runs) {
    for (const LayerProof& proof : run.proof) {
      any = true;
      if (proof.comparison.largest_difference > kTolerance) return false;
      if (proof.comparison.dark_not_zero > 0) return false;
    }
  }
  return any;
}

std::string ProofText(std::span<const RunResult> runs) {
  std::string text = absl::StrFormat("  %-26s%28s%22s\n", Proven(runs) ? "Yes." : "NO.",
                                     "largest relative difference", "dark pixels' entries");
  const LayerProof* first = nullptr;
  for (const RunResult& run : runs) {
    for (const LayerProof& proof : run.proof) {
      if (first == nullptr) first = &proof;
      const Comparison& comparison = proof.comparison;
      const std::string dark =
          comparison.dark_entries == 0 ? "-"
          : comparison.dark_not_zero == 0
              ? absl::StrFormat("%d, all 0", comparison.dark_entries)
              : absl::StrFormat("%d, %d NOT 0", comparison.dark_entries, comparison.dark_not_zero);
      absl::StrAppendFormat(&text, "  %-26s%28.1e%22s\n", proof.factor,
                            comparison.largest_difference, dark);
    }
  }
  if (first == nullptr) return text;
  absl::StrAppendFormat(&text,
                        "\n  Compared with the average that tower 0 computed by itself, in 64 "
                        "bits, of all that both\n"
                        "  towers streamed; at most %g passes. Squares of the batch's mean "
                        "gradient, a common mistake,\n"
                        "  would have made the trace of %s %.0f times too small. After every\n"
                        "  epoch the towers had the same parameters, bit for bit.\n",
                        kTolerance, first->factor, 1 / first->batch_mean_share);
  return text;
}

}  // namespace fisherd::trainer
