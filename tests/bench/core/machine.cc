#include "tests/bench/core/machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <fstream>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "tests/bench/core/memory.h"
#include "tests/bench/core/peak_kernels.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {
namespace {

std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  utsname name;
  return uname(&name) == 0 ? name.machine : "unknown";
}

// The C library's own figure is wrong on some processors.
int64_t LastCacheBytes() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  int64_t kibibytes = 0;
  if (file >> kibibytes) return kibibytes << 10;
  const int64_t reported = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return reported > 0 ? reported : int64_t{32} << 20;
}

// The least seconds of `times` runs of work(thread) by all threads at once, after as many that do
// not count.
double TimeTogether(int threads, int times, const std::function<void(int)>& work) {
  std::barrier gate(threads);
  const auto turn = [&](int thread) {
    gate.arrive_and_wait();
    work(thread);
    gate.arrive_and_wait();
  };
  std::vector<std::jthread> others;
  for (int thread = 1; thread < threads; ++thread) {
    others.emplace_back([&, thread] {
      for (int time = 0; time < 2 * times; ++time) turn(thread);
    });
  }
  double least = std::numeric_limits<double>::infinity();
  for (int time = 0; time < 2 * times; ++time) {
    const double elapsed = Seconds([&] { turn(0); });
    if (time >= times) least = std::min(least, elapsed);
  }
  return least;
}

template <typename T>
double FmaPeak(int threads) {
  constexpr int64_t kRounds = 1'000'000;
  const double flops = RunFma<T>(kRounds);  // and wakes the processor up
  return threads * flops / TimeTogether(threads, 60, [](int) { RunFma<T>(kRounds); });
}

double TriadBandwidth(int threads, int64_t bytes) {
  const int64_t part = bytes / threads / 4096 * 1024;  // elements of a thread, whole pages
  Array<float> a(part * threads), b(part * threads), c(part * threads);
  const double seconds = TimeTogether(threads, 20, [&](int thread) {
    const int64_t first = thread * part;
    RunTriad(a.data() + first, b.data() + first, c.data() + first, part);
  });
  return 3.0 * a.size() * sizeof(float) / seconds;
}

}  // namespace

int64_t Machine::large_array_bytes() const {
  return std::clamp<int64_t>(4 * last_cache_bytes, 64 << 20, memory_bytes / 8);
}

double Machine::Floor(const Case& sizes) const {
  const Peak& peak = peaks.at(sizes.threads);
  return std::max(sizes.flops() / peak.float_flops, sizes.bytes() / peak.bandwidth);
}

Machine DescribeMachine() {
  double load = 0;
  getloadavg(&load, 1);
  return {.processor = Processor(),
          .cores = static_cast<int>(std::thread::hardware_concurrency()),
          .last_cache_bytes = LastCacheBytes(),
          .memory_bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE),
          .load = load};
}

Peak MeasurePeak(const Machine& machine, int threads) {
  return {.float_flops = FmaPeak<float>(threads),
          .double_flops = FmaPeak<double>(threads),
          .bandwidth = TriadBandwidth(threads, machine.large_array_bytes())};
}

}  // namespace fisherd::bench
