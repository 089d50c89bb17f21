#include "core/backend_cpu.h"

#include "core/kernels/advance.h"
#include "core/kernels/target.h"
#include "tests/core/kernels/packed.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

// With and without work enough for several threads, one tile and several.
const kernels::StepShape kShapes[] = {{1, 1, {1}},       {300, 1, {5}},          {129, 33, {513}},
                                      {64, 128, {256}},  {200, 500, {20, 20}},   {127, 769, {100}},
                                      {1, 4000, {300}},  {1000, 70, {1, 2, 40}}, {250, 500, {300}},
                                      {16, 9000, {8, 8}}};

// A step over random squares.
template <typename T>
class Case {
 public:
  Case(const kernels::StepShape& shape, bool ones)
      : state_{.rows = shape.inputs + ones,
               .cols = shape.outputs,
               .dtype = sizeof(T) == 8 ? DataType::kFloat64 : DataType::kFloat32} {
    std::uniform_real_distribution<T> uniform(0, 2);
    const auto side = [&](int64_t rows, int64_t cols, int lines) {
      auto& packed = sides_.emplace_back(
          std::make_unique<kernels::Packed<T>>(kernels::PackedShape{rows, cols, lines}));
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) packed->at(row, col) = uniform(random_);
      }
      return packed->data();
    };
    for (const int64_t rows : shape.rows) {
      const T* left = side(rows, shape.inputs, kernels::kLeftPanelLines);
      const T* right = side(rows, shape.outputs, kernels::kRightPanelLines);
      towers_.push_back({.left = left, .right = right, .rows = rows, .scale = 1.0 / rows});
      rows_.push_back({.left = left, .right = right, .rows = rows, .scale = 1.0 / rows});
    }
    step_ = {.decay = 0.95, .weight = 0.05, .ones_column = ones, .towers = towers_};
    for (int64_t k = 0; k < state_.size(); ++k) from_.push_back(uniform(random_));
  }

  // What the kernel makes of it in one piece.
  std::vector<double> Want() const {
    std::vector<T> to(from_.begin(), from_.end());
    const kernels::AdvancePlan<T> plan({.decay = step_.decay,
                                        .weight = step_.weight,
                                        .ones_column = step_.ones_column,
                                        .left_cols = state_.rows - step_.ones_column,
                                        .right_cols = state_.cols,
                                        .towers = rows_});
    plan.Advance({0, state_.rows, 0, state_.cols}, false, to.data(), to.data());
    return {to.begin(), to.end()};
  }

  std::vector<double> Advance(ComputePool* pool) {
    auto to = Matrix::New(state_);
    EXPECT_EQ(BackendCpu(pool).Advance(step_, *MatrixOf(state_, from_), *to), 0);
    return ValuesOf(*to);
  }

  std::vector<double> AdvanceInPlace(ComputePool* pool) {
    auto state = MatrixOf(state_, from_);
    step_.find_largest = true;
    const double largest = BackendCpu(pool).Advance(step_, *state, *state);
    step_.find_largest = false;
    const std::vector<double> values = ValuesOf(*state);
    EXPECT_EQ(largest, *std::max_element(values.begin(), values.end()));
    return values;
  }

 private:
  std::mt19937 random_{7};
  const MatrixShape state_;
  std::vector<std::unique_ptr<kernels::Packed<T>>> sides_;
  std::vector<SquaredRows> towers_;
  std::vector<kernels::TowerRows<T>> rows_;
  AdvanceStep step_;
  std::vector<double> from_;
};

class BackendCpuTest : public ::testing::TestWithParam<std::tuple<kernels::StepShape, bool>> {
 protected:
  template <typename T>
  void Check() {
    Case<T> test(std::get<0>(GetParam()), std::get<1>(GetParam()));
    const std::vector<double> want = test.Want();
    EXPECT_EQ(test.Advance(nullptr), want);
    EXPECT_EQ(test.AdvanceInPlace(nullptr), want);
    for (const int threads : {1, 2, 3, 8}) {
      ComputePool pool(threads);
      EXPECT_EQ(test.Advance(&pool), want) << threads;
      EXPECT_EQ(test.AdvanceInPlace(&pool), want) << threads;
    }
  }
};

TEST_P(BackendCpuTest, ThreadsAndPlaceLeaveNoTraceInFloat32) { Check<float>(); }
TEST_P(BackendCpuTest, ThreadsAndPlaceLeaveNoTraceInFloat64) { Check<double>(); }

INSTANTIATE_TEST_SUITE_P(Shapes, BackendCpuTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes), ::testing::Bool()));

TEST(BackendCpuEdgeTest, TellsWhatIsNotFinite) {
  const kernels::PackedShape left{1, 1, kernels::kLeftPanelLines};
  const kernels::PackedShape right{1, 2, kernels::kRightPanelLines};
  kernels::Packed<float> inputs(left), grads(right);
  inputs.at(0, 0) = grads.at(0, 0) = 0x1p100f;
  grads.at(0, 1) = 0;
  const SquaredRows tower{.left = inputs.data(), .right = grads.data(), .rows = 1, .scale = 1};
  auto state = MatrixOf({.rows = 1, .cols = 2}, {1, 5});
  const double largest = BackendCpu(nullptr).Advance(
      {.decay = 1, .weight = 1, .towers = {&tower, 1}, .find_largest = true}, *state, *state);
  EXPECT_FALSE(std::isfinite(largest));
  EXPECT_EQ(ValuesOf(*state)[1], 5);
}

TEST(BackendCpuEdgeTest, TheNameTellsTheTarget) {
  EXPECT_EQ(BackendCpu(nullptr).name(), "cpu (" + kernels::CurrentTarget() + ")");
}

}  // namespace
}  // namespace fisherd::core
