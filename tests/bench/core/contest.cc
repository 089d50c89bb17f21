#include "tests/bench/core/contest.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/eigen_peers.h"
#include "tests/bench/core/ours.h"
#include "tests/bench/core/reference.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {
namespace {

using std::chrono::milliseconds;

// OpenBLAS's workers spin for some 2^26 cycles after their last work. (OpenMP's for so short a time
// that the next turn's untimed part hides it.)
constexpr milliseconds kOpenBlasSpins{50};

// One that writes to the problem's state, in this process.
struct Local {
  std::string name;
  std::function<void()> step;
  milliseconds spins{0};
};

// Takes one step from the initial state, which warms up too, and looks at some of the elements.
void Check(Problem& problem, const Local& local) {
  const int64_t size = problem.sizes.state_size();
  std::vector<std::pair<int64_t, double>> expected;
  problem.Reset();
  for (int64_t k = 0; k < 64; ++k) {
    const int64_t at = size - 1 - k * 7919 % size;
    expected.emplace_back(at, NextElement(problem, at));
  }
  local.step();
  for (const auto& [at, value] : expected) {
    const double got = problem.state()[at];
    if (!(std::abs(got - value) <= 1e-4 * value)) {
      Die(absl::StrFormat("%s: %s has %g instead of %g at %d", problem.sizes.Name(), local.name,
                          got, value, at));
    }
  }
}

std::vector<Local> LocalPeers(Problem& problem, const Peers& peers, core::ComputePool* helpers) {
  std::vector<Local> locals = {{"eigen_five_pass", [&] { EigenFivePass(problem); }},
                               {"eigen_fused", [&] { EigenFused(problem); }}};
  if (peers.openblas) {
    locals.push_back({"openblas_fused", [&, helpers] { peers.openblas->Step(problem, helpers); },
                      helpers == nullptr ? milliseconds{0} : kOpenBlasSpins});
  }
  if (peers.blis) {
    locals.push_back({"blis_fused", [&, helpers] { peers.blis->Step(problem, helpers); }});
  }
  return locals;
}

std::function<double()> TurnOf(Ours& ours, int threads) {
  return [&ours, turn = bench::TurnOf([&] { ours.Step(); }, threads)]() mutable {
    double seconds = 0;
    ours.OnPool([&] { seconds = turn(); });
    return seconds;
  };
}

double Fastest(const std::map<std::string, double>& peers, bool five_pass_only) {
  double fastest = std::numeric_limits<double>::infinity();
  for (const auto& [name, seconds] : peers) {
    if (!five_pass_only || name.ends_with("five_pass")) fastest = std::min(fastest, seconds);
  }
  return fastest;
}

}  // namespace

double Result::fastest_peer() const { return Fastest(peers, false); }
double Result::fastest_five_pass() const { return Fastest(peers, true); }

Result Contest(const Case& sizes, const Peers& peers, core::ComputePool* helpers, int rounds) {
  Problem problem(sizes);
  const std::unique_ptr<core::Matrix> other_state = NewState(sizes);
  Ours ours(problem, sizes.towers, problem.matrix());
  Ours joined(problem, 1, problem.matrix());
  Ours beside(problem, sizes.towers, *other_state);

  std::vector<Contender> contenders;
  for (auto& [name, way] : {std::pair("ours", &ours), std::pair("joined", &joined)}) {
    if (way == &joined && sizes.towers == 1) continue;
    Check(problem, {name, [way = way] { way->OnPool([&] { way->Step(); }); }});
    contenders.push_back({name, TurnOf(*way, sizes.threads)});
  }
  beside.OnPool([&] { beside.Step(); });  // warms up
  contenders.push_back({"beside", TurnOf(beside, sizes.threads)});

  std::vector<Local> locals = LocalPeers(problem, peers, helpers);
  for (Local& local : locals) {
    Check(problem, local);
    contenders.push_back({local.name, TurnOf(local.step, sizes.threads), local.spins});
  }
  if (const auto torch = peers.torch.find(sizes.threads); torch != peers.torch.end()) {
    for (const std::string name : {"torch_five_pass", "torch_addmm"}) {
      contenders.push_back({name, [&, name] { return torch->second->Turn(name, sizes); },
                            helpers == nullptr ? milliseconds{0} : kOpenBlasSpins});
      contenders.back().turn();  // warms up
    }
  }

  const std::vector<double> medians = TimeInTurns(contenders, rounds);
  Result result{.sizes = sizes, .ingest_share = ours.IngestShare()};
  for (size_t k = 0; k < contenders.size(); ++k) {
    const std::string& name = contenders[k].name;
    (name == "ours"     ? result.ours
     : name == "beside" ? result.beside
     : name == "joined" ? result.joined
                        : result.peers[name]) = medians[k];
  }
  return result;
}

}  // namespace fisherd::bench
