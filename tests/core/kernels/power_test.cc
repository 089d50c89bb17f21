#include "core/kernels/power.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/core/kernels/targets.h"

namespace fisherd::kernels {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kExactExponents[] = {-1, -0.5, 0.5, 1, 2};
constexpr double kOtherExponents[] = {-3, -2, -0.75, -0.01, 0.3, 1.0 / 3, 1.7, 3};

// Exactly so many bytes of the heap, `offset` of which come before the elements: a sanitizer sees
// whoever goes beyond them.
template <typename T>
class Bytes {
 public:
  Bytes(const std::vector<T>& values, size_t offset)
      : offset_(offset), memory_(new std::byte[offset + values.size() * sizeof(T)]) {
    if (!values.empty()) std::memcpy(data(), values.data(), values.size() * sizeof(T));
  }
  std::byte* data() { return memory_.get() + offset_; }
  T at(size_t k) {
    T x;
    std::memcpy(&x, data() + k * sizeof(T), sizeof(T));
    return x;
  }

 private:
  const size_t offset_;
  const std::unique_ptr<std::byte[]> memory_;
};

template <typename T>
std::vector<T> PowerOf(const PowerSpec& spec, const std::vector<T>& matrix) {
  std::vector<T> out(matrix.size());
  Power<T>(spec, matrix.data(), matrix.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

template <typename T>
std::vector<T> ProductOf(const PowerSpec& spec, const std::vector<T>& matrix,
                         const std::vector<T>& x) {
  std::vector<T> out(matrix.size());
  T largest;
  PowerMultiply<T>(spec, matrix.data(), reinterpret_cast<const std::byte*>(x.data()), x.size(),
                   reinterpret_cast<std::byte*>(out.data()), largest);
  return out;
}

// Nothing is rounded to T.
long double Exactly(const PowerSpec& spec, double element) {
  const long double v = static_cast<long double>(element) / spec.divisor;
  return spec.powered ? std::pow(v + spec.damping, static_cast<long double>(spec.exponent)) : v;
}

// Units in the last place of T between `got` and what is right. Results beyond T are infinite.
template <typename T>
double Ulps(T got, long double want) {
  if (static_cast<T>(want) == got) {
    if (want == 0 || std::isinf(got)) return 0;
  } else if (std::isinf(static_cast<T>(want)) || !std::isfinite(got)) {
    return kInfinity;
  }
  const int exponent = std::max(std::ilogb(want), std::numeric_limits<T>::min_exponent - 1);
  const long double ulp = std::ldexp(1.0L, exponent - (std::numeric_limits<T>::digits - 1));
  return static_cast<double>(std::abs(got - want) / ulp);
}

// Spread evenly over the binades from 2^-range to 2^range.
template <typename T>
std::vector<T> Random(std::mt19937_64& random, int64_t count, double range) {
  std::uniform_real_distribution<double> exponent(-range, range);
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(std::exp2(exponent(random)));
  return values;
}

template <typename T>
std::vector<T> Signed(std::mt19937_64& random, std::vector<T> values) {
  for (T& value : values) value = random() % 2 ? value : -value;
  return values;
}

class PowerTest : public TargetTest {
 protected:
  PowerTest() { EXPECT_EQ(PowerTarget(), GetParam()); }

  std::mt19937_64 random_{7};
};

FISHERD_FOR_EVERY_TARGET(PowerTest);

template <typename T>
void ExpectExactExponents(std::mt19937_64& random) {
  const auto matrix = Random<T>(random, 20000, 20);
  const auto x = Signed(random, Random<T>(random, 20000, 20));
  for (const double exponent : kExactExponents) {
    for (const double damping : {0.0, 1e-3, 0.7, 1e4}) {
      for (const double divisor : {1.0, 0.7, 1e-3, 54321.9}) {
        const PowerSpec spec{
            .divisor = divisor, .powered = true, .exponent = exponent, .damping = damping};
        const auto powers = PowerOf(spec, matrix);
        const auto products = ProductOf(spec, matrix, x);
        double ulps = 0;
        for (size_t k = 0; k < matrix.size(); ++k) {
          const long double want = Exactly(spec, matrix[k]);
          ulps = std::max({ulps, Ulps(powers[k], want), Ulps(products[k], x[k] * want)});
        }
        EXPECT_LE(ulps, 4) << "(v + " << damping << ")^" << exponent << " over " << divisor;
      }
    }
  }
}

TEST_P(PowerTest, ExactExponentsAreWithinFourUlps) {
  ExpectExactExponents<float>(random_);
  ExpectExactExponents<double>(random_);
}

template <typename T>
void ExpectOtherExponents(std::mt19937_64& random, double range, double tolerance) {
  const auto matrix = Random<T>(random, 2000, range);
  const auto x = Signed(random, Random<T>(random, 2000, 5));
  for (const double exponent : kOtherExponents) {
    for (const double damping : {0.0, 0.3}) {
      const PowerSpec spec{
          .divisor = 0.9, .powered = true, .exponent = exponent, .damping = damping};
      const auto powers = PowerOf(spec, matrix);
      const auto products = ProductOf(spec, matrix, x);
      long double error = 0;
      for (size_t k = 0; k < matrix.size(); ++k) {
        const long double want = Exactly(spec, matrix[k]);
        error = std::max(
            {error, std::abs(powers[k] / want - 1), std::abs(products[k] / (x[k] * want) - 1)});
      }
      EXPECT_LE(error, tolerance) << "(v + " << damping << ")^" << exponent;
    }
  }
}

TEST_P(PowerTest, OtherExponentsAreNearlyExact) {
  ExpectOtherExponents<float>(random_, 30, 1e-6);
  ExpectOtherExponents<double>(random_, 30, 1e-13);
  ExpectOtherExponents<double>(random_, 330, 1e-12);
}

template <typename T>
void ExpectCovariance(std::mt19937_64& random) {
  auto matrix = Random<T>(random, 3000, 100);
  matrix[5] = 0;
  matrix[700] = std::numeric_limits<T>::denorm_min();
  matrix[2999] = std::numeric_limits<T>::max();
  EXPECT_EQ(PowerOf<T>({}, matrix), matrix);
  EXPECT_EQ(PowerOf<T>({.exponent = -1, .damping = 3}, matrix), matrix);
  for (const double divisor : {3.0, 0.1, 1 - 1e-9}) {
    matrix[2999] = 1;
    const auto got = PowerOf<T>({.divisor = divisor}, matrix);
    for (size_t k = 0; k < matrix.size(); ++k) {
      ASSERT_LE(Ulps(got[k], matrix[k] / static_cast<long double>(divisor)), 1);
    }
  }
}

TEST_P(PowerTest, TheCovarianceIsTheQuotient) {
  ExpectCovariance<float>(random_);
  ExpectCovariance<double>(random_);
}

TEST_P(PowerTest, PowerZeroIsOne) {
  const std::vector<float> matrix = {0, 1e-45F, 1, 3e38F, 0};
  const PowerSpec spec{.divisor = 0.5, .powered = true, .exponent = 0};
  EXPECT_THAT(PowerOf(spec, matrix), Each(1));
  EXPECT_THAT(ProductOf<float>(spec, matrix, {1, -2, 3, 4, 5}), ElementsAre(1, -2, 3, 4, 5));
}

// Every size, in exactly the memory that it takes, wherever that begins, and in place: always what
// each element gives by itself.
template <typename T>
void ExpectEverySize(std::mt19937_64& random, double exponent) {
  const PowerSpec spec{.divisor = 0.8, .powered = true, .exponent = exponent, .damping = 1e-50};
  for (int64_t size = 1; size <= 200; ++size) {
    std::vector<T> v = Random<T>(random, size, 10);
    v[size / 2] = 0;  // leaves the quick way
    const std::vector<T> x = Signed(random, Random<T>(random, size, 10));
    std::vector<T> powers(size);
    std::vector<T> products(size);
    T largest = 0;
    for (int64_t k = 0; k < size; ++k) {
      powers[k] = PowerOf<T>(spec, {v[k]})[0];
      products[k] = ProductOf<T>(spec, {v[k]}, {x[k]})[0];
      largest = std::max(largest, std::abs(products[k]));
    }
    const size_t offset = size % 7;
    Bytes<T> matrix(v, offset * sizeof(T));
    T* const elements = reinterpret_cast<T*>(matrix.data());
    Bytes<T> factors(x, offset + 1);
    Bytes<T> out(x, offset + 2);
    const auto expect = [&](Bytes<T>& got, const std::vector<T>& want) {
      for (int64_t k = 0; k < size; ++k) {
        ASSERT_EQ(got.at(k), want[k]) << "element " << k << " of " << size;
      }
    };
    Power<T>(spec, elements, size, out.data());
    expect(out, powers);
    T seen = 0;
    PowerMultiply<T>(spec, elements, factors.data(), size, out.data(), seen);
    expect(out, products);
    EXPECT_EQ(seen, largest);
    PowerMultiply<T>(spec, elements, factors.data(), size, factors.data(), seen);
    expect(factors, products);
    const Summary of_power = Power<T>(spec, elements, size, matrix.data());
    expect(matrix, powers);
    const Summary of_look = Summarize<T>(v.data(), size, 0.8);
    EXPECT_EQ(of_power.least, of_look.least);
    EXPECT_EQ(of_power.most, of_look.most);
    EXPECT_NEAR(of_power.sum, of_look.sum, 1e-6 * of_look.sum);
  }
}

TEST_P(PowerTest, EverySizeAlignmentAndInPlace) {
  for (const double exponent : {-0.5, 2.0, -0.75}) {
    ExpectEverySize<float>(random_, exponent);
    ExpectEverySize<double>(random_, exponent);
  }
}

// Whatever the numbers, the result is that of the formula: whole vectors of them, and each among
// ordinary ones.
template <typename T>
void ExpectRight(const PowerSpec& spec, T element) {
  const long double want = Exactly(spec, element);
  const bool exact = std::ranges::count(kExactExponents, spec.exponent) > 0;
  for (const int64_t at : {-1, 0, 3, 19, 36}) {
    std::vector<T> matrix(37, at < 0 ? element : T{1});
    if (at >= 0) matrix[at] = element;
    const T got = PowerOf(spec, matrix)[std::max<int64_t>(at, 0)];
    const bool near = std::abs(got - want) <= 1e-6 * std::abs(want);
    EXPECT_TRUE(Ulps(got, want) <= 4 || (!exact && near))
        << "(" << element << "/" << spec.divisor << " + " << spec.damping << ")^" << spec.exponent
        << " is " << got << ", not " << want;
  }
}

template <typename T>
void ExpectExtremes() {
  using Limits = std::numeric_limits<T>;
  const double tiny = Limits::denorm_min();
  for (const double exponent : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75, 0.3, 1.7, -3.0}) {
    for (const double divisor : {1.0, 0.7, 1e3, 1e-60, 1e41, 1e60, 1e-200, 1e200}) {
      for (const double damping : {0.0, tiny, 1e-50, 1e-300, 1.0, 1e30, 1e39, 1e300}) {
        const PowerSpec spec{
            .divisor = divisor, .powered = true, .exponent = exponent, .damping = damping};
        for (const T v : {T{0}, Limits::denorm_min(), T(5 * tiny), Limits::min(), T(0x1p-99),
                          T(0x1p-101), T{1}, T(0x1p99), T(0x1p101), Limits::max()}) {
          // Bases that are subnormal or infinite in 64 bits are out of bounds.
          const long double base = v / static_cast<long double>(divisor) + damping;
          if (base != 0 && base < 1e-300L) continue;
          if (base > 1e300L) continue;
          ExpectRight<T>(spec, v);
        }
      }
    }
  }
}

TEST_P(PowerTest, Extremes) {
  ExpectExtremes<float>();
  ExpectExtremes<double>();
}

TEST_P(PowerTest, SubnormalBasesIn64Bits) {
  const std::vector<double> matrix = {0x1p-1074, 0x1.8p-1050, 0x1p-1022};
  const auto power = [&](double exponent) {
    return PowerOf<double>({.powered = true, .exponent = exponent}, matrix);
  };
  EXPECT_EQ(power(1), matrix);
  EXPECT_THAT(power(-0.5), ElementsAre(0x1p537, 1 / std::sqrt(0x1.8p-1050), 0x1p511));
  EXPECT_THAT(power(0.5), ElementsAre(0x1p-537, std::sqrt(0x1.8p-1050), 0x1p-511));
  EXPECT_THAT(power(-1)[2], 0x1p1022);
  EXPECT_NEAR(power(-0.25)[0] / std::exp2(268.5), 1, 1e-12);
  EXPECT_NEAR(power(0.25)[1] / std::pow(0x1.8p-1050, 0.25), 1, 1e-12);
}

TEST_P(PowerTest, Zeros) {
  for (const double exponent : {0.5, 1.0, 2.0, 0.3, 1.7}) {
    const PowerSpec spec{.divisor = 0.3, .powered = true, .exponent = exponent};
    EXPECT_THAT(PowerOf(spec, std::vector<float>(20)), Each(0));
    EXPECT_THAT(PowerOf(spec, std::vector<double>(20)), Each(0));
  }
  for (const double exponent : {-1.0, -0.5, -0.3, -2.0}) {
    const PowerSpec spec{.divisor = 0.3, .powered = true, .exponent = exponent};
    EXPECT_THAT(PowerOf(spec, std::vector<float>(20)), Each(kInfinity));
    EXPECT_THAT(PowerOf(spec, std::vector<double>(20)), Each(kInfinity));
  }
}

template <typename T>
void ExpectSummary(std::mt19937_64& random) {
  for (const int64_t size : {1, 2, 31, 1000, 1024, 1025, 5000}) {
    const auto matrix = Random<T>(random, size, 8);
    const double sum = std::accumulate(matrix.begin(), matrix.end(), 0.0) / 0.7;
    std::vector<T> out(size);
    T largest;
    auto* const bytes = reinterpret_cast<std::byte*>(out.data());
    for (const double exponent : {-1.0, 2.0, 0.3}) {
      const PowerSpec spec{.divisor = 0.7, .powered = true, .exponent = exponent, .damping = 0.1};
      for (const Summary& summary :
           {Summarize<T>(matrix.data(), size, 0.7), Power<T>(spec, matrix.data(), size, bytes),
            PowerMultiply<T>(spec, matrix.data(), bytes, size, bytes, largest)}) {
        EXPECT_EQ(summary.least, *std::ranges::min_element(matrix) / 0.7);
        EXPECT_EQ(summary.most, *std::ranges::max_element(matrix) / 0.7);
        EXPECT_NEAR(summary.sum / sum, 1, 64 * std::numeric_limits<T>::epsilon());
      }
    }
  }
}

TEST_P(PowerTest, Summaries) {
  ExpectSummary<float>(random_);
  ExpectSummary<double>(random_);
  const std::vector<float> large(3000, std::numeric_limits<float>::max());
  const Summary summary = Summarize(large.data(), 3000, 2);
  EXPECT_EQ(summary.most, large[0] / 2.0);
  EXPECT_NEAR(summary.sum / (1500.0 * large[0]), 1, 1e-6);
  const Summary none = Summarize<double>(nullptr, 0, 2);
  EXPECT_EQ(none.least, kInfinity);
  EXPECT_EQ(none.most, -kInfinity);
  EXPECT_EQ(none.sum, 0);
}

template <typename T>
void ExpectNonFiniteSeen(double exponent) {
  const PowerSpec spec{.divisor = 0.5, .powered = true, .exponent = exponent, .damping = 0.25};
  constexpr int64_t kSize = 77;
  const std::vector<T> matrix(kSize, T{0.25});
  const auto largest = [&](const std::vector<T>& x) {
    std::vector<T> out(kSize);
    T result = -1;
    PowerMultiply<T>(spec, matrix.data(), reinterpret_cast<const std::byte*>(x.data()), kSize,
                     reinterpret_cast<std::byte*>(out.data()), result);
    return result;
  };
  for (int64_t at = 0; at < kSize; ++at) {
    std::vector<T> x(kSize, T{1});
    x[at] = -T{3};
    EXPECT_NEAR(largest(x), 3 * std::pow(0.75, exponent), 1e-5);
    x[at] = std::nan("");
    EXPECT_TRUE(std::isnan(largest(x)));
    x[(at + 40) % kSize] = static_cast<T>(kInfinity);
    EXPECT_TRUE(std::isnan(largest(x)));
    for (const double bad : {kInfinity, -kInfinity}) {
      x.assign(kSize, T{1});
      x[at] = static_cast<T>(bad);
      EXPECT_EQ(largest(x), static_cast<T>(kInfinity));
    }
    if (exponent >= 0) continue;
    x[at] = std::numeric_limits<T>::lowest();  // the product overflows
    EXPECT_EQ(largest(x), static_cast<T>(kInfinity));
  }
}

TEST_P(PowerTest, TheLargestProductTellsWhatIsNotFinite) {
  for (const double exponent : {-1.0, -0.5, -0.3, 0.0, 0.5, 1.0, 2.0}) {
    ExpectNonFiniteSeen<float>(exponent);
    ExpectNonFiniteSeen<double>(exponent);
  }
}

TEST_P(PowerTest, AllTargetsWithFmaAgree) {
  if (!TargetHasFma()) return;
  const auto matrix = Random<float>(random_, 3000, 30);
  const auto x = Signed(random_, Random<float>(random_, 3000, 30));
  for (const double exponent : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75}) {
    const PowerSpec spec{.divisor = 0.7, .powered = true, .exponent = exponent, .damping = 1e-3};
    ASSERT_TRUE(ForceTarget(GetParam()));
    const auto got = ProductOf(spec, matrix, x);
    ChooseBestTarget();
    EXPECT_EQ(got, ProductOf(spec, matrix, x));
  }
}

}  // namespace
}  // namespace fisherd::kernels
