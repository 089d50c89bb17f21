#include "core/backend_cpu.h"

#include <cstring>

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

constexpr double kDecay = 0.95;
constexpr double kWeight = 0.05;

struct Shape {
  int64_t left_cols;
  int64_t right_cols;
  std::vector<int64_t> rows;  // of every tower
};

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << "[" << shape.left_cols << ", " << shape.right_cols << "], rows";
  for (const int64_t rows : shape.rows) out << " " << rows;
  return out;
}

const Shape kShapes[] = {
    {1, 1, {1}},
    {1, 1, {257}},
    {3, 2, {2}},
    {1, 300, {5}},
    {300, 1, {5}},
    {63, 127, {255}},
    {64, 128, {256}},
    {65, 129, {257}},
    {31, 257, {512, 1}},
    {129, 33, {513}},
    {16, 16, {1, 2, 300, 256, 511}},
    {5, 7, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
};

// A step over random squares, and what it must be.
template <typename T>
class Case {
 public:
  Case(const Shape& shape, bool ones_column)
      : step_{.decay = kDecay, .weight = kWeight, .ones_column = ones_column, .towers = {}},
        state_{.rows = shape.left_cols + ones_column,
               .cols = shape.right_cols,
               .dtype = sizeof(T) == 8 ? DataType::kFloat64 : DataType::kFloat32} {
    std::uniform_real_distribution<T> uniform(0, 2);
    const auto fill = [&](std::vector<T>& values, int64_t count) {
      values.resize(count);
      for (T& value : values) value = uniform(random_);
    };
    for (const int64_t rows : shape.rows) {
      fill(left_.emplace_back(), rows * shape.left_cols);
      fill(right_.emplace_back(), rows * shape.right_cols);
    }
    for (size_t t = 0; t < left_.size(); ++t) {
      towers_.push_back({.left = left_[t].data(),
                         .right = right_[t].data(),
                         .rows = shape.rows[t],
                         .scale = 1.0 / (shape.rows[t] * shape.rows.size() + t)});
    }
    step_.towers = towers_;
    fill(from_, state_.size());
  }

  std::unique_ptr<Matrix> From() const {
    return MatrixOf(state_, std::vector<double>(from_.begin(), from_.end()));
  }

  std::vector<double> Advance(ComputePool* pool) const {
    auto to = Matrix::New(state_);
    BackendCpu(pool).Advance(step_, *From(), *to);
    return ValuesOf(*to);
  }

  std::vector<double> AdvanceInPlace(ComputePool* pool) const {
    auto state = From();
    BackendCpu(pool).Advance(step_, *state, *state);
    return ValuesOf(*state);
  }

  // The sum as backend.h defines it, with chains of type Chain.
  template <typename Chain>
  std::vector<double> Defined() const {
    std::vector<double> result;
    for (int64_t i = 0; i < state_.rows; ++i) {
      for (int64_t j = 0; j < state_.cols; ++j) {
        double sum = 0;
        for (const SquaredRows& tower : towers_) {
          for (int64_t row = 0; row < tower.rows; row += 256) {
            sum += tower.scale * static_cast<double>(SumOfChain<Chain>(tower, row, i, j));
          }
        }
        result.push_back(static_cast<Chain>(kDecay * from_[i * state_.cols + j] + kWeight * sum));
      }
    }
    return result;
  }

 private:
  template <typename Chain>
  Chain SumOfChain(const SquaredRows& tower, int64_t first, int64_t i, int64_t j) const {
    const int64_t left_cols = state_.rows - step_.ones_column;
    const T* left = static_cast<const T*>(tower.left);
    const T* right = static_cast<const T*>(tower.right);
    Chain sum = 0;
    for (int64_t n = first; n < std::min(first + 256, tower.rows); ++n) {
      const Chain a = i < left_cols ? left[n * left_cols + i] : 1;
      const Chain product = a * static_cast<Chain>(right[n * state_.cols + j]);
      sum += product;
    }
    return sum;
  }

  std::mt19937 random_{7};
  AdvanceStep step_;
  const MatrixShape state_;
  std::vector<std::vector<T>> left_;
  std::vector<std::vector<T>> right_;
  std::vector<SquaredRows> towers_;
  std::vector<T> from_;
};

class BackendCpuTest : public ::testing::TestWithParam<std::tuple<Shape, bool>> {};

TEST_P(BackendCpuTest, Float32IsTheDefinedSum) {
  const Case<float> test(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const std::vector<double> got = test.Advance(nullptr);
  EXPECT_EQ(got, test.Defined<float>());
  ExpectNear(got, test.Defined<double>(), 1e-6);
}

TEST_P(BackendCpuTest, Float64IsTheDefinedSum) {
  const Case<double> test(std::get<0>(GetParam()), std::get<1>(GetParam()));
  EXPECT_EQ(test.Advance(nullptr), test.Defined<double>());
}

TEST_P(BackendCpuTest, ThreadsAndPlaceLeaveNoTrace) {
  const Case<float> test(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const std::vector<double> want = test.Advance(nullptr);
  EXPECT_EQ(test.AdvanceInPlace(nullptr), want);
  for (const int threads : {1, 2, 3, 8}) {
    ComputePool pool(threads);
    EXPECT_EQ(test.Advance(&pool), want) << threads;
    EXPECT_EQ(test.AdvanceInPlace(&pool), want) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, BackendCpuTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes), ::testing::Bool()));

TEST(BackendCpuEdgeTest, DecayNearOneDoesNotDrift) {
  const float ones[] = {1};
  const SquaredRows tower{.left = ones, .right = ones, .rows = 1, .scale = 1};
  auto state = MatrixOf({.rows = 1, .cols = 1}, {1});
  const double decay = 0.9999999;  // 1 − 1e-7, which float32 cannot tell from 1 − 1.2e-7
  BackendCpu(nullptr).Advance({.decay = decay, .weight = 1 - decay, .towers = {&tower, 1}}, *state,
                              *state);
  EXPECT_EQ(ValuesOf(*state)[0], 1);
}

TEST(BackendCpuEdgeTest, KeepsSubnormals) {
  const float left[] = {0x1p-70f};
  const float right[] = {0x1p-70f};
  const SquaredRows tower{.left = left, .right = right, .rows = 1, .scale = 1};
  auto state = MatrixOf({.rows = 1, .cols = 1}, {0x1p-149});
  BackendCpu(nullptr).Advance({.decay = 1, .weight = 1, .towers = {&tower, 1}}, *state, *state);
  EXPECT_EQ(ValuesOf(*state)[0], 0x1p-140 + 0x1p-149);
}

TEST(BackendCpuEdgeTest, OverflowIsInfinite) {
  const float big[] = {0x1p100f};
  const SquaredRows tower{.left = big, .right = big, .rows = 1, .scale = 0x1p-100};
  auto state = MatrixOf({.rows = 1, .cols = 1}, {1});
  BackendCpu(nullptr).Advance({.decay = 1, .weight = 1, .towers = {&tower, 1}}, *state, *state);
  EXPECT_TRUE(std::isinf(ValuesOf(*state)[0]));
}

TEST(BackendCpuEdgeTest, HasAName) { EXPECT_EQ(BackendCpu(nullptr).name(), "cpu (Eigen)"); }

}  // namespace
}  // namespace fisherd::core
