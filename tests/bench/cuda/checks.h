// Whether the kernels compute what they should.

#ifndef FISHERD_TESTS_BENCH_CUDA_CHECKS_H_
#define FISHERD_TESTS_BENCH_CUDA_CHECKS_H_

namespace fisherd::cuda {

// Compares every kernel with 64-bit arithmetic on the host, prints the largest errors, and returns
// how many checks failed. `quick` leaves out the large shapes.
int RunChecks(bool quick);

}  // namespace fisherd::cuda

#endif  // FISHERD_TESTS_BENCH_CUDA_CHECKS_H_
