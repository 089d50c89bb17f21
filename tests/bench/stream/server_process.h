// A server in a process of its own, so that its CPU time and its memory are its own.

#ifndef FISHERD_TESTS_BENCH_STREAM_SERVER_PROCESS_H_
#define FISHERD_TESTS_BENCH_STREAM_SERVER_PROCESS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/trainer/subprocess.h"

namespace fisherd::bench {

// kShared: TCP, and the elements in shared memory.
enum class Transport { kTcp, kUnix, kShared };

// Runs until it is destroyed, or this process dies. Start it on the main thread.
class ServerProcess {
 public:
  // Runs `command` with --listen and --port-file added; both servers take them. Waits until it
  // serves, or ends the benchmark.
  ServerProcess(std::vector<std::string> command, Transport transport);
  ~ServerProcess();

  const std::string& address() const { return address_; }
  double cpu_seconds() const;
  int64_t resident_bytes() const { return StatusBytes("VmRSS:"); }
  int64_t peak_resident_bytes() const { return StatusBytes("VmHWM:"); }

 private:
  int64_t StatusBytes(const std::string& field) const;

  std::string folder_;
  std::string address_;
  trainer::Subprocess process_;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_SERVER_PROCESS_H_
