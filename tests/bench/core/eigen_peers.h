// The step as Eigen does it. Compiled for this very processor, so that the peer is at its best.

#ifndef FISHERD_TESTS_BENCH_CORE_EIGEN_PEERS_H_
#define FISHERD_TESTS_BENCH_CORE_EIGEN_PEERS_H_

#include "tests/bench/core/problem.h"

namespace fisherd::bench {

// As the frameworks do it: square, square, product, divide, moving average, each a pass over
// memory; every source has a product of its own.
void EigenFivePass(Problem& problem);

// Sources' squares are summed first, and the product goes straight into the state.
void EigenFused(Problem& problem);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_EIGEN_PEERS_H_
