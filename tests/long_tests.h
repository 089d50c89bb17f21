// How much a test does on every push, and with `./dev test --long`.

#ifndef FISHERD_TESTS_LONG_TESTS_H_
#define FISHERD_TESTS_LONG_TESTS_H_

#include <cstdlib>

namespace fisherd {

// Repetitions: `usual`, or `many` under --long.
inline int Repetitions(int usual, int many) {
  return std::getenv("FISHERD_LONG_TESTS") != nullptr ? many : usual;
}

}  // namespace fisherd

#endif  // FISHERD_TESTS_LONG_TESTS_H_
