// PyTorch, in a process of its own that takes its turns when it is told.

#ifndef FISHERD_TESTS_BENCH_CORE_TORCH_PEER_H_
#define FISHERD_TESTS_BENCH_CORE_TORCH_PEER_H_

#include <sys/types.h>

#include <cstdio>
#include <memory>
#include <string>

#include "tests/bench/core/case.h"

namespace fisherd::bench {

class Torch {
 public:
  // Null if no python3 here has torch. A process keeps the number of threads that it began with.
  static std::unique_ptr<Torch> Start(int threads);
  ~Torch();
  Torch(const Torch&) = delete;
  Torch& operator=(const Torch&) = delete;

  const std::string& description() const { return description_; }

  // A turn of "torch_five_pass" or "torch_addmm"; seconds per step.
  double Turn(const std::string& contender, const Case& sizes);

 private:
  Torch(pid_t child, int socket);
  std::string ReadLine();  // empty at the end

  const pid_t child_;
  std::FILE* const to_;
  std::FILE* const from_;
  std::string description_;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_TORCH_PEER_H_
