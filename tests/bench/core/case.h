// What is timed: one step of one factor, by its sizes.

#ifndef FISHERD_TESTS_BENCH_CORE_CASE_H_
#define FISHERD_TESTS_BENCH_CORE_CASE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace fisherd::bench {

struct Case {
  int64_t rows = 0;  // of each tower
  int64_t inputs = 0;
  int64_t outputs = 0;
  bool bias = true;
  int sources = 1;
  int towers = 1;
  int threads = 1;

  int64_t depth() const { return rows * towers; }
  int64_t state_rows() const { return inputs + bias; }
  int64_t state_size() const { return state_rows() * outputs; }

  // A multiply and an add for every row and element of the state.
  double flops() const { return 2.0 * depth() * state_size(); }
  // The raw tensors and the state read, the state written.
  double bytes() const { return 4.0 * (depth() * (inputs + sources * outputs) + 2 * state_size()); }

  std::string ShapeName() const;  // "128x1024x1024": rows, inputs, outputs
  std::string Name() const;       // "128x1024x1024/bias/s1/t1/1"
  bool operator==(const Case&) const = default;
};

// Each shape with bias, without, with four sources, and with four towers; or a few of them.
std::vector<Case> Cases(int threads, bool quick);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_CASE_H_
