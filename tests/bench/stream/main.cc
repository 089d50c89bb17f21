#include <regex.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "tests/bench/core/die.h"
#include "tests/bench/stream/factors.h"
#include "tests/bench/stream/overload.h"
#include "tests/bench/stream/raw_server.h"
#include "tests/bench/stream/stream.h"

namespace fisherd::bench {
namespace {

constexpr char kUsage[] =
    R"(usage: ./dev bench stream|overload|factors [OPTIONS]

  stream     streams of batches beside raw streams of bytes of the same size: throughput, round
             trips, the server's CPU time and its memory; and what metrics cost
  overload   64 trainers that push four times the server's byte budget
  factors    a step of 100 factors among 10,000

Each starts its servers, says what must hold, and ends them.

  --json FILE      write the figures there too
  --filter REGEX   stream: only cases with a match in their name; unix/256KiB/t4/f8 is batches of
                   256 KiB over a Unix socket, 4 trainers, 8 factors each; shm is shared memory; metrics: what
                   they cost
  --seconds N      overload: push for so long (60)
  --quick          fewer cases, fewer rounds; overload: 10 seconds
  --help           this text
)";

struct Options {
  std::string command;
  std::string fisherd;
  std::ofstream json;  // closed if nobody wants it
  regex_t filter;
  double seconds = 0;
  bool quick = false;
};

Options ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  std::string filter;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    const auto value = [&] {
      if (++i == arguments.size()) Die(name + " needs a value; try --help");
      return arguments[i];
    };
    if (name == "--help") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (name == "--quick") {
      options.quick = true;
    } else if (name == "--fisherd") {
      options.fisherd = value();
    } else if (name == "--json") {
      options.json.open(value());
      if (!options.json.is_open()) Die("cannot write " + arguments[i]);
    } else if (name == "--filter") {
      filter = value();
    } else if (name == "--seconds") {
      if (!absl::SimpleAtod(value(), &options.seconds) || !(options.seconds > 0)) {
        Die("--seconds must be a positive number");
      }
    } else if (options.command.empty() && !name.starts_with("--")) {
      options.command = name;
    } else {
      Die("no such option: " + name + "; try --help");
    }
  }
  if (options.fisherd.empty()) Die("--fisherd must name the server's program");
  if (options.seconds == 0) options.seconds = options.quick ? 10 : 60;
  if (regcomp(&options.filter, filter.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
    Die("not a regular expression: " + filter);
  }
  return options;
}

std::string ThisProgram() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) Die("cannot find this program");
  return {path, static_cast<size_t>(size)};
}

void Finish(Options& options, const std::vector<Claim>& claims, const std::string& json) {
  PrintClaims(claims);
  if (!options.json.is_open()) return;
  options.json << json << std::flush;
  if (!options.json) Die("could not write the figures");
}

void RunStream(Options& options) {
  const Servers servers = {.ours = {options.fisherd, "--batch-budget=2GiB"},
                           .raw = {ThisProgram(), "raw-server"}};
  std::vector<StreamResult> results;
  std::vector<ClientCosts> costs;
  PrintStreamHead();
  for (const StreamCase& sizes : StreamCases(options.quick)) {
    if (regexec(&options.filter, sizes.Name().c_str(), 0, nullptr, 0) != 0) continue;
    results.push_back(MeasureStream(servers, sizes, options.quick));
    PrintStreamRow(results.back());
  }
  PrintShared(results);
  for (const int64_t batch_bytes : {16 << 10, 256 << 10, 1 << 20, 16 << 20}) {
    costs.push_back(MeasureClientCosts(batch_bytes));
  }
  PrintClientCosts(costs);
  std::vector<MeteredResult> metered;
  if (regexec(&options.filter, "metrics", 0, nullptr, 0) == 0) {
    metered = MeasureMetered(servers, options.quick);
    PrintMetered(metered);
  }
  const std::vector<Claim> claims = StreamClaims(results, metered);
  Finish(options, claims, StreamJson(results, costs, metered, claims));
}

void RunOverload(Options& options) {
  const OverloadResult result = MeasureOverload(options.fisherd, options.seconds);
  PrintOverload(result);
  const std::vector<Claim> claims = OverloadClaims(result);
  Finish(options, claims, OverloadJson(result, claims));
}

void RunFactors(Options& options) {
  const FactorsResult result = MeasureFactors(options.fisherd, options.quick);
  PrintFactors(result);
  const std::vector<Claim> claims = FactorsClaims(result);
  Finish(options, claims, FactorsJson(result, claims));
}

int Run(Options options) {
  signal(SIGPIPE, SIG_IGN);
  double load = 0;
  getloadavg(&load, 1);
  absl::PrintF("%d cores; load before this %.2f\n\n", std::thread::hardware_concurrency(), load);
  if (options.command == "stream") {
    RunStream(options);
  } else if (options.command == "overload") {
    RunOverload(options);
  } else if (options.command == "factors") {
    RunFactors(options);
  } else {
    Die("what? There are: stream, overload, factors");
  }
  return 0;
}

}  // namespace
}  // namespace fisherd::bench

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "raw-server") {
    return fisherd::bench::RunRawServer({arguments.begin() + 1, arguments.end()});
  }
  return fisherd::bench::Run(fisherd::bench::ParseOptions(arguments));
}
