#include "tests/bench/core/report.h"

#include "absl/strings/str_format.h"

namespace fisherd::bench {
namespace {

constexpr double kMs = 1e3;

void Flush() { std::fflush(stdout); }

const std::string& OrAbsent(const std::string& description) {
  static const std::string kAbsent = "absent";
  return description.empty() ? kAbsent : description;
}

}  // namespace

void PrintMachine(const Machine& machine, const Peers& peers) {
  absl::PrintF("%s, %d cores, last cache %d MiB; load before this %.2f\n", machine.processor,
               machine.cores, machine.last_cache_bytes >> 20, machine.load);
  absl::PrintF("OpenBLAS: %s\n", OrAbsent(peers.openblas ? peers.openblas->description() : ""));
  absl::PrintF("BLIS:     %s\n", OrAbsent(peers.blis ? peers.blis->description() : ""));
  absl::PrintF("PyTorch:  %s\n\n",
               OrAbsent(peers.torch.empty() ? "" : peers.torch.begin()->second->description()));
  Flush();
}

void PrintPeak(int threads, const Peak& peak) {
  absl::PrintF("%d thread%s: %.1f GFLOP/s float32, %.1f float64; triad %.1f GB/s\n", threads,
               threads == 1 ? "" : "s", peak.float_flops / 1e9, peak.double_flops / 1e9,
               peak.bandwidth / 1e9);
  Flush();
}

void PrintTableHead(int threads) {
  absl::PrintF("\nms per step, %d thread%s; ratio: fastest peer / ours; floor: its share of ours\n",
               threads, threads == 1 ? "" : "s");
  absl::PrintF("%-14s %-4s %1s %1s %9s %6s %9s | %9s %9s %9s %9s %9s %9s | %5s %5s\n",
               "rows x I x O", "bias", "S", "T", "ours", "ingest", "beside", "eigen 5", "eigen",
               "openblas", "blis", "torch 5", "addmm", "ratio", "floor");
  Flush();
}

void PrintRow(const Result& result) {
  const Case& sizes = result.sizes;
  absl::PrintF("%-14s %-4s %1d %1d %9.3f %5.0f%% %9.3f |", sizes.ShapeName(),
               sizes.bias ? "yes" : "no", sizes.sources, sizes.towers, result.ours * kMs,
               result.ingest_share * 100, result.beside * kMs);
  for (const char* name : kPeers) {
    const auto peer = result.peers.find(name);
    if (peer == result.peers.end()) {
      absl::PrintF(" %9s", "-");
    } else {
      absl::PrintF(" %9.3f", peer->second * kMs);
    }
  }
  absl::PrintF(" | %5.2f %4.0f%%\n", result.fastest_peer() / result.ours,
               result.floor / result.ours * 100);
  Flush();
}

void PrintMultiplies(const Measurements& measured) {
  absl::PrintF("\nmultiply: (v + λ)^e ∘ x, float32, beyond the caches\n");
  for (const MultiplyResult& r : measured.multiplies) {
    absl::PrintF("e = %-5g threads %d  %8.2f ms  %6.1f GB/s  %4.0f%% of triad\n", r.exponent,
                 r.threads, r.seconds * kMs, r.bandwidth / 1e9, r.triad_share * 100);
  }
  Flush();
}

void PrintErrors(const Measurements& measured) {
  absl::PrintF("\nlargest errors, against wider floats\n");
  for (const StepError& e : measured.step_errors) {
    absl::PrintF("a step of %5d rows, float32   %8.2g relative\n", e.rows, e.relative);
  }
  for (const PowerError& e : measured.power_errors) {
    absl::PrintF("power, e = %-5g %16s  %8.2g relative, %.2f ulp\n", e.exponent, e.dtype,
                 e.relative, e.ulps);
  }
  Flush();
}

}  // namespace fisherd::bench
