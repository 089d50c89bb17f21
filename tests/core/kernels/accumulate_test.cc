#include "core/kernels/accumulate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/kernels/target.h"
#include "tests/core/kernels/targets.h"

namespace fisherd::kernels {
namespace {

using AccumulateTest = TargetTest;
FISHERD_FOR_EVERY_TARGET(AccumulateTest);

TEST_P(AccumulateTest, IsTheOneThatRuns) { EXPECT_EQ(AccumulateTarget(), GetParam()); }

// One element after the other, as the header says.
template <typename T>
T Defined(double decay, const std::vector<std::vector<T>>& terms,
          const std::vector<double>& weights, size_t i, T from) {
  double sum = decay * static_cast<double>(from);
  for (size_t k = 0; k < terms.size(); ++k) {
    const double x = terms[k][i];
    sum = TargetHasFma() ? std::fma(weights[k], x, sum) : weights[k] * x + sum;
  }
  return static_cast<T>(sum);
}

// Of heap arrays of exactly that size, so that a sanitizer sees whoever goes beyond them.
template <typename T>
void CheckDefined() {
  std::mt19937 random(1);
  std::uniform_real_distribution<T> uniform(0, 3);
  for (const int64_t count : {1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 1000}) {
    for (const size_t terms : {1, 2, 5}) {
      SCOPED_TRACE(testing::Message() << count << " elements, " << terms << " terms");
      const auto draw = [&] {
        std::vector<T> values(count);
        for (T& value : values) value = uniform(random);
        values.shrink_to_fit();
        return values;
      };
      std::vector<std::vector<T>> elements;
      std::vector<double> weights;
      std::vector<Term<T>> views;
      for (size_t k = 0; k < terms; ++k) {
        elements.push_back(draw());
        weights.push_back(uniform(random));
      }
      for (size_t k = 0; k < terms; ++k) views.push_back({elements[k].data(), weights[k]});
      const std::vector<T> from = draw();
      std::vector<T> beside(count), in_place = from;
      const T largest =
          Accumulate<T>(0.9, std::span<const Term<T>>(views), count, from.data(), beside.data());
      Accumulate<T>(0.9, std::span<const Term<T>>(views), count, in_place.data(), in_place.data());
      T want_largest = 0;
      for (int64_t i = 0; i < count; ++i) {
        const T want = Defined(0.9, elements, weights, i, from[i]);
        ASSERT_EQ(beside[i], want) << i;
        ASSERT_EQ(in_place[i], want) << i;
        want_largest = std::max(want_largest, want);
      }
      EXPECT_EQ(largest, want_largest);
    }
  }
}

TEST_P(AccumulateTest, Float32IsTheDefinedSum) { CheckDefined<float>(); }
TEST_P(AccumulateTest, Float64IsTheDefinedSum) { CheckDefined<double>(); }

TEST_P(AccumulateTest, SaysWhatIsNotFiniteWhereverItIs) {
  for (const int64_t count : {1, 8, 9, 40}) {
    for (int64_t bad = 0; bad < count; ++bad) {
      std::vector<float> from(count, 1), to(count), term(count, 1);
      term[bad] = std::numeric_limits<float>::max();
      const Term<float> view{term.data(), 2};
      EXPECT_FALSE(
          std::isfinite(Accumulate<float>(1, std::span(&view, 1), count, from.data(), to.data())))
          << bad << " of " << count;
    }
  }
}

}  // namespace
}  // namespace fisherd::kernels
