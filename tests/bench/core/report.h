// What people read of it, on standard output.

#ifndef FISHERD_TESTS_BENCH_CORE_REPORT_H_
#define FISHERD_TESTS_BENCH_CORE_REPORT_H_

#include "tests/bench/core/claims.h"
#include "tests/bench/core/contest.h"
#include "tests/bench/core/machine.h"

namespace fisherd::bench {

void PrintMachine(const Machine& machine, const Peers& peers);
void PrintPeak(int threads, const Peak& peak);

void PrintTableHead(int threads);
void PrintRow(const Result& result);

void PrintMultiplies(const Measurements& measured);
void PrintErrors(const Measurements& measured);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_REPORT_H_
