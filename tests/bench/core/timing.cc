#include "tests/bench/core/timing.h"

#include <algorithm>
#include <thread>

namespace fisherd::bench {
namespace {

// Rounds beyond the third are begun within this time only.
constexpr double kRoundsSeconds = 7;

// Over at least so many seconds.
double SecondsPerStep(const std::function<void()>& step, double least) {
  int steps = 0;
  double elapsed = 0;
  const auto start = std::chrono::steady_clock::now();
  do {
    step();
    ++steps;
    elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  } while (elapsed < least);
  return elapsed / steps;
}

}  // namespace

std::function<double()> TurnOf(std::function<void()> step, int threads) {
  return [step = std::move(step), threads, last = 0.0]() mutable {
    if (threads > 1 && last < kLongStepSeconds) SecondsPerStep(step, SettleSeconds(threads));
    return last = SecondsPerStep(step, kSliceSeconds);
  };
}

std::vector<double> TimeInTurns(const std::vector<Contender>& contenders, int most) {
  std::vector<std::vector<double>> seconds(contenders.size());
  double elapsed = 0;
  for (int round = 0; round < most && (round < 3 || elapsed < kRoundsSeconds); ++round) {
    elapsed += Seconds([&] {
      for (size_t k = 0; k < contenders.size(); ++k) {
        seconds[k].push_back(contenders[k].turn());
        std::this_thread::sleep_for(contenders[k].rest);
      }
    });
  }
  std::vector<double> medians;
  for (const std::vector<double>& of_one : seconds) medians.push_back(Median(of_one));
  return medians;
}

double Median(std::vector<double> values) {
  const size_t middle = values.size() / 2;
  std::ranges::nth_element(values, values.begin() + middle);
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle] + *std::max_element(values.begin(), values.begin() + middle)) / 2;
}

}  // namespace fisherd::bench
