// What gRPC itself can do: a server that reads streams of bytes and computes nothing.

#ifndef FISHERD_TESTS_BENCH_STREAM_RAW_SERVER_H_
#define FISHERD_TESTS_BENCH_STREAM_RAW_SERVER_H_

#include <string>
#include <vector>

namespace fisherd::bench {

inline constexpr char kRawMethod[] = "/fisherd.bench.Raw/Stream";
// As large as an acknowledgement of fisherd; begins with the number of batches that have come, as
// 8 bytes in the machine's order.
inline constexpr int kRawAnswerBytes = 64;

// Serves until SIGTERM. A stream's first message is the number of messages in a batch, in decimal;
// the others are batches. Acknowledges as fisherd does: with one small message for all that have
// come since the one before. `arguments`: --listen=ADDRESS,… and --port-file=PATH.
int RunRawServer(const std::vector<std::string>& arguments);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_RAW_SERVER_H_
