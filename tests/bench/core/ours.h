// The product's own step, as the server takes it: ingest into packed rows, then advance.

#ifndef FISHERD_TESTS_BENCH_CORE_OURS_H_
#define FISHERD_TESTS_BENCH_CORE_OURS_H_

#include <functional>
#include <memory>
#include <vector>

#include "core/backend_cpu.h"
#include "core/compute_pool.h"
#include "core/kernels/packed.h"
#include "core/matrix.h"
#include "tests/bench/core/memory.h"
#include "tests/bench/core/problem.h"

namespace fisherd::bench {

class Ours {
 public:
  // Takes the problem's rows as those of `towers` towers, and writes the new state to `to`: in
  // place if that is the problem's own.
  Ours(Problem& problem, int towers, core::Matrix& to);

  // Calls `work` as the server calls its commits: on a thread of the pool, if there is more than
  // one. Steps are to be taken within.
  void OnPool(const std::function<void()>& work);

  void Step();

  // Of the time that all steps took so far.
  // The part of a step that is ingest, measured apart: clocks read within a step would count as
  // its.
  double IngestShare();

 private:
  // One tower's rows, packed.
  struct Tower {
    int64_t first_row = 0;  // in the problem
    Array<float> left;
    Array<float> right;
  };

  void Ingest();
  void IngestRows(Tower& tower, int64_t first, int64_t rows);
  void Advance();

  Problem& problem_;
  core::Matrix& to_;
  const int64_t tower_rows_;
  const kernels::PackedShape left_shape_;
  const kernels::PackedShape right_shape_;
  const std::unique_ptr<core::ComputePool> pool_;  // null for one thread
  core::BackendCpu backend_;
  std::vector<Tower> towers_;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_OURS_H_
