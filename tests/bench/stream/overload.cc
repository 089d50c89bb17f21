#include "tests/bench/stream/overload.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/server.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/json_object.h"
#include "tests/bench/core/timing.h"
#include "tests/bench/stream/server_process.h"
#include "tests/bench/stream/trainers.h"

namespace fisherd::bench {
namespace {

// Four trainers to a factor, so that steps have to wait for one another; of each trainer the window
// has four batches, 256 MiB of all trainers together.
constexpr int kTrainers = 64;
constexpr int kTowers = 4;
constexpr int kFactors = kTrainers / kTowers;
constexpr int kWindow = 4;
constexpr int64_t kBatchBytes = int64_t{1} << 20;
constexpr int64_t kPushedBytes = kTrainers * kWindow * kBatchBytes;
constexpr int64_t kTightBudget = kPushedBytes / 4;
constexpr int64_t kAmpleBudget = kPushedBytes * 4;
constexpr int kMaxStreams = 128;

constexpr std::chrono::milliseconds kHealthInterval{50};
constexpr absl::Duration kPatience = absl::Milliseconds(100);

constexpr int64_t kStateBytes = kFactors * kLayerSize * kLayerSize * 4;
// A message that is being received, and the window of HTTP/2.
constexpr int64_t kStreamBytes = server::kMaxMessageBytes + server::kStreamWindowBytes;

std::vector<double> AskForHealth(const std::string& address, const std::atomic<bool>& stop) {
  Client client = Client::FromChannel(OwnChannel(address));
  std::vector<double> seconds;
  auto next = std::chrono::steady_clock::now();
  while (!stop) {
    seconds.push_back(Seconds([&] {
      if (const absl::Status status = client.CheckHealth(); !status.ok()) Die(status.ToString());
    }));
    next = std::max(next + kHealthInterval, std::chrono::steady_clock::now());
    std::this_thread::sleep_until(next);
  }
  std::ranges::sort(seconds);
  return seconds;
}

Load Measure(const std::string& fisherd, int64_t budget, double duration) {
  const ServerProcess server({fisherd, absl::StrCat("--batch-budget=", budget),
                              absl::StrCat("--max-streams=", kMaxStreams)},
                             Transport::kTcp);
  Load load = {.batches = std::vector<int64_t>(kTrainers),
               .idle_resident_bytes = server.resident_bytes()};
  Client client = Client::FromChannel(OwnChannel(server.address()));
  CreateFactors(client, kFactors, {.towers = kTowers, .window = kWindow});
  std::vector<std::unique_ptr<OurTrainer>> trainers;
  for (int trainer = 0; trainer < kTrainers; ++trainer) {
    trainers.push_back(std::make_unique<OurTrainer>(OurOptions{.address = server.address(),
                                                               .factors = {trainer / kTowers},
                                                               .tower = trainer % kTowers,
                                                               .batch_bytes = kBatchBytes}));
  }
  std::atomic<bool> stop = false;
  std::vector<std::jthread> threads;
  for (auto& trainer : trainers) {
    threads.emplace_back([&stop, &trainer] {
      while (!stop) trainer->PushWithin(kPatience);
    });
  }
  std::jthread health([&] { load.health_seconds = AskForHealth(server.address(), stop); });
  load.seconds =
      Seconds([&] { std::this_thread::sleep_for(std::chrono::duration<double>(duration)); });
  for (int trainer = 0; trainer < kTrainers; ++trainer) {
    load.batches[trainer] = trainers[trainer]->ended();
  }
  load.peak_resident_bytes = server.peak_resident_bytes();
  stop = true;
  health.join();
  threads.clear();
  const int64_t batches = std::accumulate(load.batches.begin(), load.batches.end(), int64_t{0});
  load.bytes_per_second = batches * kBatchBytes / load.seconds;
  return load;
}

double Percentile99(const std::vector<double>& sorted) {
  return sorted.empty() ? std::nan("") : sorted[sorted.size() * 99 / 100];
}

double SlowestShare(const Load& load) {
  const double sum = std::accumulate(load.batches.begin(), load.batches.end(), 0.0);
  return *std::ranges::min_element(load.batches) / (sum / load.batches.size());
}

// What the server has promised to stay below.
double MemoryBound() { return 1.1 * (kTightBudget + kStateBytes + kTrainers * kStreamBytes); }

// The program itself counts for what it takes before anyone has come.
double MemoryOf(const Load& load) { return load.peak_resident_bytes - load.idle_resident_bytes; }

void PrintLoad(const char* name, const Load& load) {
  absl::PrintF("%-14s %7.0f %9.2f %12.1f %12.1f %9.2f %8d %8d\n", name, load.seconds,
               load.bytes_per_second / 1e9,
               1e3 * load.health_seconds[load.health_seconds.size() / 2],
               1e3 * Percentile99(load.health_seconds), SlowestShare(load),
               load.peak_resident_bytes >> 20, load.idle_resident_bytes >> 20);
}

Object LoadObject(const Load& load) {
  return Object()
      .Put("seconds", load.seconds)
      .Put("gbps", load.bytes_per_second / 1e9)
      .Put("health_p99_ms", 1e3 * Percentile99(load.health_seconds))
      .Put("slowest_to_mean", SlowestShare(load))
      .Put("rss_mib", static_cast<double>(load.peak_resident_bytes >> 20))
      .Put("idle_rss_mib", static_cast<double>(load.idle_resident_bytes >> 20));
}

}  // namespace

OverloadResult MeasureOverload(const std::string& fisherd, double seconds) {
  const Load before = Measure(fisherd, kAmpleBudget, seconds / 4);
  const Load tight = Measure(fisherd, kTightBudget, seconds);
  const Load after = Measure(fisherd, kAmpleBudget, seconds / 4);
  return {.tight = tight, .before = before, .after = after};
}

void PrintOverload(const OverloadResult& result) {
  absl::PrintF("%d trainers push %d MiB together; budgets of %d and %d MiB\n", kTrainers,
               kPushedBytes >> 20, kTightBudget >> 20, kAmpleBudget >> 20);
  absl::PrintF("%-14s %7s %9s %12s %12s %9s %8s %8s\n", "budget", "seconds", "GB/s",
               "health p50 ms", "p99 ms", "slowest", "peak MiB", "idle MiB");
  PrintLoad("ample, before", result.before);
  PrintLoad("tight", result.tight);
  PrintLoad("ample, after", result.after);
  absl::PrintF(
      "bound of the peak above idle: 1.1 x (budget %d + state %.2f + %d streams x %.2f) MiB\n",
      kTightBudget >> 20, kStateBytes / double{1 << 20}, kTrainers, kStreamBytes / double{1 << 20});
  std::fflush(stdout);
}

std::vector<Claim> OverloadClaims(const OverloadResult& result) {
  const Load& tight = result.tight;
  return {{.what = "peak memory / (budget + state + streams' share + 10 %)",
           .figure = MemoryOf(tight) / MemoryBound(),
           .bound = 1,
           .at_least = false,
           .cases = 1},
          {.what = "health, p99 in ms",
           .figure = 1e3 * Percentile99(tight.health_seconds),
           .bound = 100,
           .at_least = false,
           .cases = static_cast<int>(tight.health_seconds.size())},
          {.what = "slowest trainer / mean",
           .figure = SlowestShare(tight),
           .bound = 0.5,
           .cases = kTrainers},
          {.what = "goodput / that with an ample budget",
           .figure = tight.bytes_per_second / result.ample_bytes_per_second(),
           .bound = 0.8,
           .cases = 1}};
}

std::string OverloadJson(const OverloadResult& result, const std::vector<Claim>& claims) {
  return absl::StrCat("{\"tight\": ", LoadObject(result.tight).json(),
                      ",\n\"ample_before\": ", LoadObject(result.before).json(),
                      ",\n\"ample_after\": ", LoadObject(result.after).json(),
                      ",\n\"claims\": ", JsonList(claims, ClaimObject), "}\n");
}

}  // namespace fisherd::bench
