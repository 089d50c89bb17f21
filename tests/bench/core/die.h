// How a benchmark gives up.

#ifndef FISHERD_TESTS_BENCH_CORE_DIE_H_
#define FISHERD_TESTS_BENCH_CORE_DIE_H_

#include <errno.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace fisherd::bench {

// Figures of a benchmark in which something went wrong are worth nothing: it ends.
[[noreturn]] inline void Die(const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, why.c_str());
  std::exit(1);
}

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_DIE_H_
