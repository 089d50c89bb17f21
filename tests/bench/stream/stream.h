// Streams of batches beside streams of mere bytes.

#ifndef FISHERD_TESTS_BENCH_STREAM_STREAM_H_
#define FISHERD_TESTS_BENCH_STREAM_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/core/claim.h"
#include "tests/bench/stream/in_process.h"
#include "tests/bench/stream/server_process.h"

namespace fisherd::bench {

// How to start both servers, without an address.
struct Servers {
  std::vector<std::string> ours;
  std::vector<std::string> raw;
};

struct StreamCase {
  Transport transport = Transport::kTcp;
  int64_t batch_bytes = 0;
  int trainers = 1;  // each a tower of every factor, on a connection of its own
  int factors = 1;   // of every stream

  std::string_view TransportName() const;
  std::string Name() const;  // tcp/256KiB/t4/f8; unix/…, shm/…
};

std::vector<StreamCase> StreamCases(bool quick);

// Of one server: medians over rounds.
struct StreamFigures {
  double bytes_per_second = 0;
  double cpu_seconds_per_gb = 0;  // of the server
  double trainers_cpu_seconds_per_gb = 0;
  int64_t peak_resident_bytes = 0;
  // From a batch's Push until it has ended, nothing else under way: seconds; of one trainer and one
  // factor.
  std::optional<double> p50 = {};
  std::optional<double> p99 = {};
};

struct StreamResult {
  StreamCase sizes;
  StreamFigures ours;
  StreamFigures raw;                      // over TCP, if ours shares memory,
  std::optional<StreamFigures> tcp = {};  // and then ours over TCP, in the same rounds
  double in_process = 0;                  // bytes per second
};

StreamResult MeasureStream(const Servers& servers, const StreamCase& sizes, bool quick);

// What metrics cost: a server that is scraped every second beside one that counts no calls and has
// no HTTP port.
struct MeteredResult {
  StreamCase sizes;
  double scraped = 0;  // bytes per second, medians
  double plain = 0;
  double ratio = 0;  // the median of the ratios of turns that followed each other
};
std::vector<MeteredResult> MeasureMetered(const Servers& servers, bool quick);
void PrintMetered(const std::vector<MeteredResult>& results);

void PrintStreamHead();
void PrintStreamRow(const StreamResult& result);
// Those with shared memory beside TCP.
void PrintShared(const std::vector<StreamResult>& results);
void PrintClientCosts(const std::vector<ClientCosts>& costs);
std::vector<Claim> StreamClaims(const std::vector<StreamResult>& results,
                                const std::vector<MeteredResult>& metered);
std::string StreamJson(const std::vector<StreamResult>& results,
                       const std::vector<ClientCosts>& costs,
                       const std::vector<MeteredResult>& metered, const std::vector<Claim>& claims);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_STREAM_H_
