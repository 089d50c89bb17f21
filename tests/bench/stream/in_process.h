// The same work without a network: what the server and the client library can do at best.

#ifndef FISHERD_TESTS_BENCH_STREAM_IN_PROCESS_H_
#define FISHERD_TESTS_BENCH_STREAM_IN_PROCESS_H_

#include <cstdint>
#include <memory>

namespace fisherd::bench {

// A server's sessions, factors and compute pool, fed with messages that were made before.
class InProcess {
 public:
  InProcess(int factors, int trainers, int64_t batch_bytes);
  ~InProcess();
  // Bytes per second, until the steps have ended, over about so many bytes. Trainers share as many
  // threads as the machine runs at once.
  double Turn(int64_t bytes);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

// What one batch costs its trainer before gRPC has it, on one thread: bytes per second.
struct ClientCosts {
  int64_t batch_bytes = 0;
  double copy = 0;       // into memory that is there
  double digest = 0;     // XXH3-128
  double crc = 0;        // CRC-32C
  double encode = 0;     // all three, into messages that are kept
  double serialize = 0;  // of those, into what gRPC sends
};

ClientCosts MeasureClientCosts(int64_t batch_bytes);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_IN_PROCESS_H_
