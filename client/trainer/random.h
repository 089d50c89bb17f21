// Random numbers whose sequence is the same with every standard library (its engines are defined,
// its distributions are not).

#ifndef FISHERD_TRAINER_RANDOM_H_
#define FISHERD_TRAINER_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numbers>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace fisherd::trainer {

// Not thread-safe.
class Random {
 public:
  // Every list of parts, as in {seed, purpose, step}, begins a sequence of its own.
  explicit Random(std::initializer_list<uint32_t> parts) {
    std::seed_seq sequence(parts);
    engine_.seed(sequence);
  }

  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }

  // Of mean 0 and variance 1 (Box and Muller).
  double Normal() {
    const double radius = std::sqrt(-2 * std::log1p(-Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

  // The numbers 0 … n − 1 in random order (Fisher and Yates).
  std::vector<int> Permutation(int n) {
    std::vector<int> numbers(n);
    std::iota(numbers.begin(), numbers.end(), 0);
    for (int i = n - 1; i > 0; --i) {
      std::swap(numbers[i], numbers[static_cast<int>(Uniform() * (i + 1))]);
    }
    return numbers;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_RANDOM_H_
