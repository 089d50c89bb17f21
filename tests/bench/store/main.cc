// ./dev bench store: what durability costs, beside plain files and RocksDB.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "rocksdb/db.h"
#include "tests/bench/core/claim.h"
#include "tests/bench/core/json_object.h"
#include "tests/bench/core/timing.h"
#include "tests/bench/store/world.h"

namespace fisherd::bench {
namespace {

constexpr char kUsage[] = R"(usage: ./dev bench store [OPTIONS]

Snapshots beside plain O_DIRECT writing of the same bytes, recovery, the latency of steps beside a
running snapshot, the memory of one, and SYNC commits beside RocksDB's own synced puts and beside
steps that nothing keeps; and says what must hold.

  --dir DIR     where to write (build/bench-store); several GB
  --json FILE   write the figures there too
  --quick       smaller states, fewer rounds
)";

struct Result {
  std::string name;
  int64_t bytes = 0;
  double ours = 0;
  double peer = 0;
  std::string unit;
};

struct Bench {
  std::string directory;
  bool quick = false;
  std::vector<Result> results = {};
  std::vector<Claim> claims = {};

  void Add(Result result) {
    absl::PrintF("%-28s %12d  %10.4g  %10.4g  %s\n", result.name, result.bytes, result.ours,
                 result.peer, result.unit);
    std::fflush(stdout);
    results.push_back(std::move(result));
  }
  std::string Fresh() const {
    std::filesystem::remove_all(directory);
    std::filesystem::create_directories(directory);
    return directory + "/data";
  }
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * values.size()))];
}

// Bytes that this process has had written to disks.
int64_t WrittenBytes() {
  std::ifstream file("/proc/self/io");
  std::string key;
  int64_t value = 0;
  while (file >> key >> value) {
    if (key == "write_bytes:") return value;
  }
  return 0;
}

// The same bytes with O_DIRECT and a sync, and nothing else.
double WritePlainly(const std::string& path, int64_t bytes) {
  constexpr int64_t kBlock = 4 << 20;
  static void* const block = [] {
    void* memory = std::aligned_alloc(4096, kBlock);
    std::memset(memory, 1, kBlock);
    return memory;
  }();
  std::filesystem::remove(path);
  return Seconds([&] {
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_DIRECT, 0600);
    for (int64_t at = 0; at < bytes; at += kBlock) {
      if (pwrite(file, block, static_cast<size_t>(std::min(kBlock, bytes - at)), at) < 0) {
        std::perror("store_bench: pwrite");
        std::exit(1);
      }
    }
    fdatasync(file);
    close(file);
  });
}

// The same under a name that is given it at the end, and one record that says so: the least that
// makes it safe.
double WriteSafely(const std::string& directory, int64_t bytes) {
  const std::string path = directory + "/plain";
  std::filesystem::remove(path);
  return WritePlainly(path + ".tmp", bytes) + Seconds([&] {
           std::filesystem::rename(path + ".tmp", path);
           const int folder = open(directory.c_str(), O_RDONLY | O_DIRECTORY);
           fsync(folder);
           close(folder);
           const int log = open((directory + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
           const std::string record(160, 'x');
           if (write(log, record.data(), record.size()) < 0) std::exit(1);
           fdatasync(log);
           close(log);
         });
}

// Snapshots, their write amplification, and recovery.
void MeasureSnapshots(Bench& bench) {
  for (const int64_t bytes : {int64_t{4} << 20, int64_t{64} << 20, int64_t{1} << 30}) {
    if (bench.quick && bytes > int64_t{64} << 20) continue;
    World world(bench.Fresh());
    const auto trainer = Trainer::Of(world.Create("f", bytes, core::DurabilityLevel::kSnapshot));
    std::vector<double> ours, peer, safe;
    int64_t written = 0;
    const int rounds = bytes > int64_t{64} << 20 ? 3 : bytes > int64_t{4} << 20 ? 11 : 101;
    for (int round = 0; round < rounds; ++round) {
      trainer->Step();
      const int64_t before = WrittenBytes();
      ours.push_back(static_cast<double>(bytes) / world.Save() / 1e6);
      written += WrittenBytes() - before;
      peer.push_back(static_cast<double>(bytes) / WritePlainly(bench.directory + "/plain", bytes) /
                     1e6);
      safe.push_back(static_cast<double>(bytes) / WriteSafely(bench.directory, bytes) / 1e6);
    }
    const std::string name = absl::StrCat("snapshot/", bytes >> 20, "MiB");
    bench.Add({name, bytes, Median(ours), Median(peer), "MB/s"});
    bench.Add({name + "/safe", bytes, Median(ours), Median(safe), "MB/s"});
    bench.claims.push_back({.what = "snapshot rate / plain O_DIRECT writing",
                            .figure = Median(ours) / Median(peer),
                            .bound = 0.8,
                            .where = name,
                            .cases = 1});
    const double amplification = static_cast<double>(written) / static_cast<double>(rounds * bytes);
    bench.Add({absl::StrCat("written/", bytes >> 20, "MiB"), bytes, amplification, 1, "x"});
    if (bytes >= int64_t{64} << 20) {
      bench.claims.push_back({.what = "bytes written / bytes of the state",
                              .figure = amplification,
                              .bound = 1.1,
                              .at_least = false,
                              .where = name,
                              .cases = 1});
      const double seconds = world.Restart();
      bench.Add({absl::StrCat("recovery/", bytes >> 20, "MiB"), bytes, seconds, 0, "s"});
      bench.claims.push_back({.what = "recovery / (2 s + 1.5 s per GB)",
                              .figure = seconds / (2 + 1.5 * static_cast<double>(bytes) / 1e9),
                              .bound = 1,
                              .at_least = false,
                              .where = name,
                              .cases = 1});
    }
  }
}

// Steps of one factor while it and a large one are saved, and while nothing is.
void MeasureLatency(Bench& bench) {
  constexpr int64_t kBytes = 4 << 20;
  World world(bench.Fresh());
  const auto trainer = Trainer::Of(world.Create("f", kBytes, core::DurabilityLevel::kSnapshot));
  const auto large = Trainer::Of(world.Create("large", int64_t{bench.quick ? 64 : 512} << 20,
                                              core::DurabilityLevel::kSnapshot));
  std::vector<double> quiet, saving;
  const int rounds = bench.quick ? 2 : 5;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 300; ++i) quiet.push_back(trainer->Step() * 1e6);
    large->Step();
    std::atomic<bool> saved = false;
    std::thread saver([&] {
      world.Save();
      saved = true;
    });
    while (!saved) saving.push_back(trainer->Step() * 1e6);
    saver.join();
  }
  bench.Add({"step/p50", kBytes, Median(saving), Median(quiet), "us"});
  bench.Add({"step/p99", kBytes, Percentile(saving, 0.99), Percentile(quiet, 0.99), "us"});
  bench.claims.push_back({.what = "p99 of a step during a snapshot / without",
                          .figure = Percentile(saving, 0.99) / Percentile(quiet, 0.99),
                          .bound = 1.5,
                          .at_least = false,
                          .where = "step/p99",
                          .cases = 1});
}

// A value of /proc/self/status in bytes.
int64_t MemoryOf(const std::string& key) {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    int64_t kib = 0;
    if (word == key && file >> kib) return kib << 10;
  }
  return 0;
}

// What a snapshot takes while the factor that is written goes on: one version of it, and a bit.
void MeasureMemory(Bench& bench) {
  const int64_t bytes = int64_t{bench.quick ? 64 : 256} << 20;
  World world(bench.Fresh());
  std::vector<std::shared_ptr<Trainer>> trainers;
  for (const std::string name : {"a", "b", "c"}) {
    trainers.push_back(Trainer::Of(world.Create(name, bytes, core::DurabilityLevel::kSnapshot)));
    trainers.back()->Step();
    trainers.back()->Step();
  }
  const int64_t before = MemoryOf("VmRSS:");
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak is from now on
  std::atomic<bool> saved = false;
  std::thread saver([&] {
    world.Save();
    saved = true;
  });
  while (!saved) {
    for (const auto& trainer : trainers) trainer->Step();
  }
  saver.join();
  const int64_t more = MemoryOf("VmHWM:") - before;
  bench.Add({"memory/snapshot", bytes, static_cast<double>(more) / 1e6,
             static_cast<double>(bytes + (64 << 20)) / 1e6, "MB"});
  bench.claims.push_back(
      {.what = "memory of a snapshot / (a version of the factor + 64 MiB)",
       .figure = static_cast<double>(more) / static_cast<double>(bytes + (64 << 20)),
       .bound = 1,
       .at_least = false,
       .where = "memory/snapshot",
       .cases = 1});
}

// Runs `step` for each of so many writers, side by side, so often; a second's.
double Rate(int writers, int steps, const std::function<void(int writer, int step)>& step) {
  return writers * steps / Seconds([&] {
           std::vector<std::thread> threads;
           for (int writer = 0; writer < writers; ++writer) {
             threads.emplace_back([&, writer] {
               for (int i = 0; i < steps; ++i) step(writer, i);
             });
           }
           for (std::thread& thread : threads) thread.join();
         });
}

// 100 factors of 1 MB whose steps are logged, as their batches or as their contribution, and as
// many synced puts of the bytes that are logged by as many threads.
void MeasureSync(Bench& bench) {
  constexpr int64_t kBytes = 1 << 20;
  constexpr int kFactors = 100;
  const int steps = bench.quick ? 2 : 10;
  for (const int64_t rows : {1, 256}) {
    std::vector<double> ours, unkept, peer;
    int64_t logged = 0;
    const auto steps_at = [&](core::DurabilityLevel level) {
      World world(bench.Fresh());
      std::vector<std::shared_ptr<Trainer>> trainers;
      for (int i = 0; i < kFactors; ++i) {
        trainers.push_back(Trainer::Of(world.Create(absl::StrCat("f", i), kBytes, level), rows));
      }
      logged = std::min(kBytes, trainers[0]->batch_bytes());
      return Rate(kFactors, steps, [&](int f, int) { trainers[f]->Step(); });
    };
    for (int round = 0; round < 3; ++round) {
      ours.push_back(steps_at(core::DurabilityLevel::kSync));
      unkept.push_back(steps_at(core::DurabilityLevel::kMemory));
      rocksdb::Options options;
      options.create_if_missing = true;
      rocksdb::DB* database = nullptr;
      if (!rocksdb::DB::Open(options, bench.Fresh(), &database).ok()) std::exit(1);
      const std::string value(static_cast<size_t>(logged), 'x');
      rocksdb::WriteOptions write;
      write.sync = true;
      peer.push_back(Rate(kFactors, steps, [&](int f, int i) {
        if (!database->Put(write, absl::StrCat(f, "/", i), value).ok()) std::exit(1);
      }));
      delete database;
    }
    const std::string name = absl::StrCat("sync/", rows, rows == 1 ? "-row" : "-rows");
    bench.Add({name, logged, Median(ours), Median(peer), "commits/s"});
    bench.Add({name + "/unkept", logged, Median(ours), Median(unkept), "commits/s"});
    if (logged < kBytes) continue;  // of a state that is swept for a few bytes there is no peer
    bench.claims.push_back({.what = "SYNC commits / RocksDB's synced puts of the same bytes",
                            .figure = Median(ours) / Median(peer),
                            .bound = 0.7,
                            .where = name,
                            .cases = 1});
  }
}

int Run(int argc, char** argv) {
  Bench bench{.directory = "build/bench-store"};
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") {
      bench.quick = true;
    } else if (argument == "--json" && i + 1 < argc) {
      json = argv[++i];
    } else if (argument == "--dir" && i + 1 < argc) {
      bench.directory = argv[++i];
    } else {
      std::fputs(kUsage, argument == "--help" ? stdout : stderr);
      return argument == "--help" ? 0 : 2;
    }
  }
  absl::PrintF("%-28s %12s  %10s  %10s\n", "", "bytes", "ours", "peer");
  MeasureSnapshots(bench);
  MeasureLatency(bench);
  MeasureMemory(bench);
  MeasureSync(bench);
  std::filesystem::remove_all(bench.directory);
  PrintClaims(bench.claims);
  if (json.empty()) return 0;
  std::ofstream(json) << "{\"results\": "
                      << JsonList(bench.results,
                                  [](const Result& r) {
                                    Object object;
                                    return object.Text("name", r.name)
                                        .Put("bytes", r.bytes)
                                        .Put("ours", r.ours)
                                        .Put("peer", r.peer)
                                        .Text("unit", r.unit);
                                  })
                      << ",\n\"claims\": " << JsonList(bench.claims, ClaimObject) << "}\n";
  return 0;
}

}  // namespace
}  // namespace fisherd::bench

int main(int argc, char** argv) { return fisherd::bench::Run(argc, argv); }
