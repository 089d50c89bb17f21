// One case, all contenders.

#ifndef FISHERD_TESTS_BENCH_CORE_CONTEST_H_
#define FISHERD_TESTS_BENCH_CORE_CONTEST_H_

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/compute_pool.h"
#include "tests/bench/core/blas_peer.h"
#include "tests/bench/core/case.h"
#include "tests/bench/core/torch_peer.h"

namespace fisherd::bench {

// The peers' names, as in the JSON and in the order of the table.
inline constexpr const char* kPeers[] = {"eigen_five_pass", "eigen_fused",     "openblas_fused",
                                         "blis_fused",      "torch_five_pass", "torch_addmm"};

// Those that this machine has.
struct Peers {
  std::optional<Blas> openblas;
  std::optional<Blas> blis;
  std::map<int, std::unique_ptr<Torch>> torch;  // by threads
};

// Seconds per step, medians.
struct Result {
  Case sizes;
  double floor = 0;
  double ours = 0;
  double ingest_share = 0;              // of ours
  double beside = 0;                    // ours, into another buffer
  double joined = 0;                    // ours, if the rows were one tower's; 0 for one tower
  std::map<std::string, double> peers;  // those that were there

  double fastest_peer() const;
  // Of those that take five passes.
  double fastest_five_pass() const;
};

// Checks that the contenders compute the same, then times them. `helpers` has a thread less than
// the case, and is null for one.
Result Contest(const Case& sizes, const Peers& peers, core::ComputePool* helpers, int rounds);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_CONTEST_H_
