#include "tests/bench/core/accuracy.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/kernels/power.h"
#include "tests/bench/core/ours.h"
#include "tests/bench/core/reference.h"

namespace fisherd::bench {
namespace {

constexpr double kDamping = 1e-3;

template <typename T>
PowerError PowerErrorOf(const char* dtype, double exponent) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> magnitude(-40, 40);
  std::vector<T> matrix(1 << 18);
  for (T& v : matrix) v = static_cast<T>(std::exp2(magnitude(random)));
  std::vector<T> powers(matrix.size());
  kernels::Power<T>({.powered = true, .exponent = exponent, .damping = kDamping}, matrix.data(),
                    matrix.size(), reinterpret_cast<std::byte*>(powers.data()));

  PowerError error{.dtype = dtype, .exponent = exponent};
  for (const double exact : {-1.0, -0.5, 0.5, 1.0, 2.0}) error.exact |= exponent == exact;
  for (size_t k = 0; k < matrix.size(); ++k) {
    const long double v = matrix[k] + static_cast<long double>(kDamping);
    const long double expected = std::pow(v, static_cast<long double>(exponent));
    const long double off = std::abs(powers[k] - expected);
    const int last_place = std::ilogb(expected) + 1 - std::numeric_limits<T>::digits;
    error.relative = std::max<double>(error.relative, off / expected);
    error.ulps = std::max<double>(error.ulps, std::ldexp(off, -last_place));
  }
  return error;
}

}  // namespace

std::vector<StepError> StepErrors() {
  std::vector<StepError> errors;
  for (const int64_t rows : {1, 256, 1024, 65536}) {
    Problem problem({.rows = rows, .inputs = 24, .outputs = 40});
    problem.matrix().Fill(0).IgnoreError();
    std::vector<double> expected;
    for (int64_t k = 0; k < problem.sizes.state_size(); ++k) {
      expected.push_back(NextElement(problem, k));
    }
    Ours(problem, 1, problem.matrix()).Step();
    StepError error{.rows = rows};
    for (int64_t k = 0; k < problem.sizes.state_size(); ++k) {
      const double off = std::abs(problem.state()[k] - expected[k]) / expected[k];
      error.relative = std::max(error.relative, off);
    }
    errors.push_back(error);
  }
  return errors;
}

std::vector<PowerError> PowerErrors() {
  std::vector<PowerError> errors;
  for (const double exponent : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75, 0.3}) {
    errors.push_back(PowerErrorOf<float>("float32", exponent));
    errors.push_back(PowerErrorOf<double>("float64", exponent));
  }
  return errors;
}

}  // namespace fisherd::bench
