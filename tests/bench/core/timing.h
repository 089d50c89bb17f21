// Times that can be compared: contenders take turns, so that whatever slows the machine down for a
// while slows all of them.

#ifndef FISHERD_TESTS_BENCH_CORE_TIMING_H_
#define FISHERD_TESTS_BENCH_CORE_TIMING_H_

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace fisherd::bench {

// A turn lasts at least so long, or one step.
inline constexpr double kSliceSeconds = 0.02;

// Before it, several threads work untimed for so long: a thread that has slept may wake up on a
// core that is taken, and the system needs a while to move it. Long steps do without.
constexpr double SettleSeconds(int threads) { return threads > 1 ? 0.06 : 0; }
inline constexpr double kLongStepSeconds = 0.2;

template <typename F>
double Seconds(F&& work) {
  const auto start = std::chrono::steady_clock::now();
  std::forward<F>(work)();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Contender {
  std::string name;
  std::function<double()> turn;  // steps for kSliceSeconds; answers seconds per step
  // Idle workers may go on spinning after a turn; the next one waits for them to sleep.
  std::chrono::milliseconds rest{0};
};

// A turn of a contender that lives in this process.
std::function<double()> TurnOf(std::function<void()> step, int threads);

// Every contender's median over rounds in which each has a turn: `most` rounds, or three if they
// take long.
std::vector<double> TimeInTurns(const std::vector<Contender>& contenders, int most);

double Median(std::vector<double> values);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_TIMING_H_
