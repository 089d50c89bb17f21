// How much memory this process may use.

#ifndef FISHERD_SERVER_MACHINE_MEMORY_H_
#define FISHERD_SERVER_MACHINE_MEMORY_H_

#include <cstdint>
#include <string>

namespace fisherd::server {

// Bytes: the machine's memory, or the lowest memory.max of the process's control groups (v2) if
// that is less. `root` is where /proc and /sys lie, for tests; 0 if /proc does not say.
int64_t MachineMemory(const std::string& root = "");

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_MACHINE_MEMORY_H_
