// The backend that tests of the core run over: the processor's, or, with FISHERD_TEST_BACKEND=cuda,
// the first GPU's.

#ifndef FISHERD_TESTS_CORE_TEST_BACKEND_H_
#define FISHERD_TESTS_CORE_TEST_BACKEND_H_

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/backend_cpu.h"
#include "core/devices.h"

namespace fisherd::core {

// Lives to the end of the program.
inline Backend& TestBackend() {
  static Backend* const backend = []() -> Backend* {
    const char* const wanted = std::getenv("FISHERD_TEST_BACKEND");
    if (wanted == nullptr || std::string_view(wanted) != "cuda") return new BackendCpu(nullptr);
    static Devices& devices = *new Devices(FindDevices({.memory = int64_t{1} << 30}));
    if (!devices.found.empty()) return devices.found[0].get();
    std::printf("no GPU: %s\n", devices.why_none.c_str());
    std::exit(77);  // ctest takes it for skipped
  }();
  return *backend;
}

}  // namespace fisherd::core

#endif  // FISHERD_TESTS_CORE_TEST_BACKEND_H_
