// What the machine can do at best, measured before anything else is.

#ifndef FISHERD_TESTS_BENCH_CORE_MACHINE_H_
#define FISHERD_TESTS_BENCH_CORE_MACHINE_H_

#include <cstdint>
#include <map>
#include <string>

#include "tests/bench/core/case.h"

namespace fisherd::bench {

// Of a number of threads together: the best of several runs, as STREAM has it.
struct Peak {
  double float_flops = 0;  // multiply-adds in registers, two operations each, per second
  double double_flops = 0;
  double bandwidth = 0;  // triad in memory, three elements a turn, bytes per second
};

struct Machine {
  std::string processor;
  int cores = 0;  // that this process may use
  int64_t last_cache_bytes = 0;
  int64_t memory_bytes = 0;
  double load = 0;            // of others: runnable threads, over a minute
  std::string target;         // that our kernels run on
  std::map<int, Peak> peaks;  // by threads

  // Of an array that no cache holds.
  int64_t large_array_bytes() const;

  // The least that one step can take: seconds.
  double Floor(const Case& sizes) const;
};

Machine DescribeMachine();
Peak MeasurePeak(const Machine& machine, int threads);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_MACHINE_H_
