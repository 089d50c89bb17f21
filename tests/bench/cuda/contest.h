// A step of ours beside cuBLAS, timed on one card.

#ifndef FISHERD_TESTS_BENCH_CUDA_CONTEST_H_
#define FISHERD_TESTS_BENCH_CUDA_CONTEST_H_

#include <cstdint>
#include <string>

namespace fisherd::cuda {

// Prints a line a shape and returns all as JSON: {"machine":{…},"results":[…],"multiply":[…]}.
// The peak and the bandwidth are measured first.
std::string RunContest();

}  // namespace fisherd::cuda

#endif  // FISHERD_TESTS_BENCH_CUDA_CONTEST_H_
