#include <regex.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "core/kernels/target.h"
#include "tests/bench/core/claim.h"
#include "tests/bench/core/claims.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/json.h"
#include "tests/bench/core/report.h"

namespace fisherd::bench {
namespace {

constexpr char kUsage[] =
    R"(usage: ./dev bench core [OPTIONS]

Times one step of a float32 factor, as fisherd takes it and as others do, each in turn, and says
what must hold. docs/benchmarks.md explains the columns.

  --json FILE      write the figures there too
  --filter REGEX   only cases with a match in their name; 128x1024x1024/bias/s1/t1/2 is 128 rows of
                   1024 inputs and 1024 outputs, with bias (else plain), one source, one tower, on
                   two threads
  --threads N      only on N threads, 1 or 2
  --quick          a few shapes, a few rounds
  --help           this text
)";

struct Options {
  std::ofstream json;  // closed if nobody wants it
  regex_t filter;
  std::vector<int> threads = {1, 2};
  bool quick = false;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto value = [&] {
      if (++i == argc) Die(std::string(name) + " needs a value; try --help");
      return std::string(argv[i]);
    };
    if (name == "--help") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (name == "--quick") {
      options.quick = true;
    } else if (name == "--json") {
      options.json.open(value());
      if (!options.json.is_open()) Die("cannot write " + std::string(argv[i]));
    } else if (name == "--filter") {
      filter = value();
    } else if (name == "--threads") {
      int threads = 0;
      if (!absl::SimpleAtoi(value(), &threads) || threads < 1 || threads > 2) {
        Die("--threads must be 1 or 2");
      }
      options.threads = {threads};
    } else {
      Die("no such option: " + std::string(name) + "; try --help");
    }
  }
  if (regcomp(&options.filter, filter.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
    Die("not a regular expression: " + filter);
  }
  return options;
}

Peers FindPeers(const std::vector<int>& threads) {
  Peers peers;
  for (const int count : threads) {  // before the libraries have started threads
    if (auto torch = Torch::Start(count)) peers.torch[count] = std::move(torch);
  }
  peers.openblas = Blas::OpenBlas();
  peers.blis = Blas::Blis();
  return peers;
}

void Measure(const Options& options, int threads, const Machine& machine, const Peers& peers,
             Measurements& measured) {
  const auto helpers = threads > 1 ? std::make_unique<core::ComputePool>(threads - 1) : nullptr;
  PrintTableHead(threads);
  for (const Case& sizes : Cases(threads, options.quick)) {
    if (regexec(&options.filter, sizes.Name().c_str(), 0, nullptr, 0) != 0) continue;
    Result result = Contest(sizes, peers, helpers.get(), options.quick ? 3 : 7);
    result.floor = machine.Floor(sizes);
    PrintRow(result);
    measured.results.push_back(result);
  }
  for (const MultiplyResult& result : TimeMultiply(machine, helpers.get())) {
    measured.multiplies.push_back(result);
  }
}

int Run(Options options) {
  signal(SIGPIPE, SIG_IGN);
  const Peers peers = FindPeers(options.threads);
  Machine machine = DescribeMachine();
  PrintMachine(machine, peers);
  for (const int threads : options.threads) {
    machine.peaks[threads] = MeasurePeak(machine, threads);
    PrintPeak(threads, machine.peaks[threads]);
  }
  // The peaks are the processor's best, whatever the kernels are to run on.
  if (const char* target = std::getenv(kernels::kTargetVariable)) {
    if (!kernels::ForceTarget(target)) Die(std::string("no such target here: ") + target);
  }
  absl::PrintF("fisherd runs on %s\n", machine.target = kernels::CurrentTarget());
  Measurements measured{.step_errors = StepErrors(), .power_errors = PowerErrors()};
  for (const int threads : options.threads) Measure(options, threads, machine, peers, measured);
  const std::vector<Claim> claims = Claims(measured);
  PrintMultiplies(measured);
  PrintErrors(measured);
  PrintClaims(claims);
  if (!options.json.is_open()) return 0;
  options.json << ToJson(machine, peers, measured, claims) << std::flush;
  if (!options.json) Die("could not write the figures");
  return 0;
}

}  // namespace
}  // namespace fisherd::bench

int main(int argc, char** argv) {
  return fisherd::bench::Run(fisherd::bench::ParseOptions(argc, argv));
}
