#include "core/kernels/advance.h"

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "tests/core/kernels/packed.h"
#include "tests/core/kernels/targets.h"

namespace fisherd::kernels {
namespace {

const StepShape kShapes[] = {
    // Blocks of every size, one chain and several, towers of one size and of several.
    {16, 48, {256}},
    {17, 49, {257}},
    {31, 97, {512, 1}},
    {33, 16, {513}},
    {8, 32, {600, 200}},
    {9, 33, {64, 64, 64, 64}},
    {40, 70, {1, 2, 3}},
    {15, 47, {31}},
    {7, 65, {8, 8}},
    // Small towers, put together; of one scale or not.
    {30, 100, {3, 3, 3, 3}},
    {16, 48, {15, 15}},
    {17, 49, {15, 15, 2}},
    {9, 5, {7, 7, 7}},
    // Few rows, of one tower or of several.
    {1, 300, {1}},
    {50, 100, {2}},
    {17, 47, {1, 1, 1}},
    {33, 145, {2, 2}},
    {3, 96, {4}},
    {5, 50, {1, 2}},
    // Few columns.
    {1, 1, {1}},
    {1, 1, {257}},
    {3, 2, {2}},
    {300, 1, {5}},
    {70, 10, {256}},
    {65, 15, {90, 90, 90}},
    {5, 7, {100, 100, 56, 56, 56}},
    {33, 9, {20, 30}},
    {16, 5, {600}},
    {40, 3, {7}},
    {20, 12, {9}},
    {48, 6, {10}},
    // More chains than a pass takes.
    {20, 50, {1100, 300}},
    {9, 100, {1024, 1}},
    {24, 53, {1024}},
    {18, 48, {2100}},
    {11, 9, {520, 520, 520}},
    {20, 5, {1300}},
    {7, 49, {5, 6, 7, 8, 9, 10, 11, 12, 13}},
    {31, 4, {8}},
    {17, 8, {6}},
    {64, 11, {13}},
};

// multiply-add as the current target has it.
template <typename T>
T MulAdd(T a, T b, T c) {
  if (TargetHasFma()) return std::fma(a, b, c);
  const T product = a * b;
  return product + c;
}

// A step over random squares, and what it must be.
template <typename T>
class Case {
 public:
  Case(const StepShape& shape, bool ones, double decay = 0.95, double weight = 0.05)
      : ones_(ones), outputs_(shape.outputs), decay_(decay), weight_(weight) {
    std::uniform_real_distribution<T> uniform(0, 2);
    for (const int64_t rows : shape.rows) {
      auto& left = left_.emplace_back(
          std::make_unique<Packed<T>>(PackedShape{rows, shape.inputs, kLeftPanelLines}));
      auto& right = right_.emplace_back(
          std::make_unique<Packed<T>>(PackedShape{rows, shape.outputs, kRightPanelLines}));
      for (auto* side : {left.get(), right.get()}) {
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t col = 0; col < side->shape().cols; ++col) {
            side->at(row, col) = uniform(random_);
          }
        }
      }
      towers_.push_back({.left = left->data(),
                         .right = right->data(),
                         .rows = rows,
                         .scale = 1.0 / static_cast<double>(rows * shape.rows.size())});
    }
    from_.resize((shape.inputs + ones) * outputs_);
    for (T& value : from_) value = uniform(random_);
  }

  typename AdvancePlan<T>::Step step() const {
    return {.decay = decay_,
            .weight = weight_,
            .ones_column = ones_,
            .left_cols = static_cast<int64_t>(from_.size()) / outputs_ - ones_,
            .right_cols = outputs_,
            .towers = towers_};
  }
  int64_t rows() const { return static_cast<int64_t>(from_.size()) / outputs_; }
  std::vector<TowerRows<T>>& towers() { return towers_; }
  std::vector<T>& from() { return from_; }

  // In tiles of the given size, in place or beside, from and to blocks of exactly the state's size.
  std::vector<T> Advance(int64_t tile_rows, int64_t tile_cols, bool in_place) {
    const AdvancePlan<T> plan(step());
    Block<T> from(from_.size(), 0);
    Block<T> to(from_.size(), Packed<T>::kUntouched);
    std::copy(from_.begin(), from_.end(), from.data());
    T* const target = in_place ? from.data() : to.data();
    largest_ = 0;
    for (int64_t row = 0; row < rows(); row += tile_rows) {
      for (int64_t col = 0; col < outputs_; col += tile_cols) {
        const T largest = plan.Advance({.first_row = row,
                                        .last_row = std::min(row + tile_rows, rows()),
                                        .first_col = col,
                                        .last_col = std::min(col + tile_cols, outputs_)},
                                       true, from.data(), target);
        if (!(largest <= largest_)) largest_ = largest;
      }
    }
    return std::vector<T>(target, target + from_.size());
  }
  std::vector<T> Advance() { return Advance(1 << 20, 1 << 20, false); }
  T largest() const { return largest_; }

  // What advance.h says, one element after the other.
  std::vector<T> Defined() const {
    std::vector<T> result;
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = 0; j < outputs_; ++j) result.push_back(DefinedElement(i, j));
    }
    return result;
  }

  // The same in 64 bits throughout.
  std::vector<double> Reference() const {
    std::vector<double> result;
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = 0; j < outputs_; ++j) {
        double sum = 0;
        for (size_t t = 0; t < towers_.size(); ++t) {
          for (int64_t n = 0; n < towers_[t].rows; ++n) {
            sum += towers_[t].scale * Left(t, n, i) * right_[t]->at(n, j);
          }
        }
        result.push_back(decay_ * from_[i * outputs_ + j] + weight_ * sum);
      }
    }
    return result;
  }

 private:
  double Left(size_t t, int64_t row, int64_t i) const {
    return i < left_[t]->shape().cols ? left_[t]->at(row, i) : 1;
  }

  T DefinedElement(int64_t i, int64_t j) const {
    struct Chain {
      double weight;
      T sum = 0;
      int64_t rows = 0;
    };
    std::vector<Chain> chains;
    for (size_t t = 0; t < towers_.size(); ++t) {
      const double weight = weight_ * towers_[t].scale;
      for (int64_t n = 0; n < towers_[t].rows; ++n) {
        if (chains.empty() || chains.back().rows == 256 || chains.back().weight != weight) {
          chains.push_back({.weight = weight});
        }
        Chain& chain = chains.back();
        chain.sum = MulAdd(static_cast<T>(Left(t, n, i)), right_[t]->at(n, j), chain.sum);
        ++chain.rows;
      }
    }
    struct Run {
      double weight;
      T sum = 0;
    };
    std::vector<Run> runs;
    for (size_t k = 0; k < chains.size(); ++k) {
      if (k % 4 == 0 || chains[k].weight != chains[k - 1].weight) {
        runs.push_back({chains[k].weight, chains[k].sum});
      } else {
        runs.back().sum += chains[k].sum;
      }
    }
    const T from = from_[i * outputs_ + j];
    if (runs.size() == 1 && std::is_same_v<T, float> && weight_ >= 1e-20 && weight_ <= 1e20 &&
        (decay_ == 0 || decay_ >= 1e-20)) {
      const T decay = static_cast<T>(decay_);
      const T weight = static_cast<T>(runs[0].weight);
      const T low_decay = static_cast<T>(decay_ - decay);
      return MulAdd(decay, from, MulAdd(weight, runs[0].sum, low_decay * from));
    }
    double sum = runs[0].weight * static_cast<double>(runs[0].sum);
    for (size_t k = 1; k < runs.size(); ++k) {
      sum = MulAdd<double>(runs[k].weight, runs[k].sum, sum);
    }
    return static_cast<T>(MulAdd<double>(decay_, from, sum));
  }

  std::mt19937 random_{7};
  const bool ones_;
  const int64_t outputs_;
  const double decay_;
  const double weight_;
  std::vector<std::unique_ptr<Packed<T>>> left_;
  std::vector<std::unique_ptr<Packed<T>>> right_;
  std::vector<TowerRows<T>> towers_;
  std::vector<T> from_;
  T largest_ = 0;
};

class AdvanceTest : public TargetTest {};

TEST_P(AdvanceTest, IsTheOneThatRuns) { EXPECT_EQ(AdvanceTarget(), GetParam()); }

template <typename T>
void CheckDefined() {
  for (const StepShape& shape : kShapes) {
    for (const bool ones : {false, true}) {
      SCOPED_TRACE(testing::Message() << shape << (ones ? ", bias" : ""));
      Case<T> test(shape, ones);
      const std::vector<T> want = test.Defined();
      EXPECT_EQ(test.Advance(), want);
      EXPECT_EQ(test.largest(), *std::max_element(want.begin(), want.end()));
      // Neither tiles nor the place leave a trace.
      constexpr int64_t kRows = AdvancePlan<T>::kTileRows, kCols = AdvancePlan<T>::kTileCols;
      EXPECT_EQ(test.Advance(1 << 20, 1 << 20, true), want);
      EXPECT_EQ(test.Advance(kRows, kCols, true), want);
      EXPECT_EQ(test.Advance(2 * kRows, kCols, false), want);
      EXPECT_EQ(test.Advance(kRows, 2 * kCols, true), want);
    }
  }
}

TEST_P(AdvanceTest, Float32IsTheDefinedSum) { CheckDefined<float>(); }
TEST_P(AdvanceTest, Float64IsTheDefinedSum) { CheckDefined<double>(); }

TEST_P(AdvanceTest, IsNearTheReference) {
  for (const StepShape& shape : kShapes) {
    Case<float> test(shape, true);
    const std::vector<float> got = test.Advance();
    const std::vector<double> want = test.Reference();
    for (size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k], want[k], 1e-6 * want[k]) << shape;
  }
}

TEST_P(AdvanceTest, TowersOfOneSizeAreOneTower) {
  Case<float> towers({9, 50, {70, 70, 70, 70}}, true);
  Case<float> one({9, 50, {280}}, true);  // draws the same numbers in another order
  // So compare by handing the one tower's rows out to four.
  std::vector<TowerRows<float>> parts;
  std::vector<std::unique_ptr<Packed<float>>> held;
  const PackedShape left{280, 9, kLeftPanelLines}, right{280, 50, kRightPanelLines};
  const TowerRows<float> whole = one.towers()[0];
  for (int64_t first = 0; first < 280; first += 70) {
    for (const auto& [shape, from] : {std::pair(left, whole.left), std::pair(right, whole.right)}) {
      auto part = std::make_unique<Packed<float>>(PackedShape{70, shape.cols, shape.panel_lines});
      for (int64_t row = 0; row < 70; ++row) {
        for (int64_t col = 0; col < shape.cols; ++col) {
          part->at(row, col) = from[PackedIndex<float>(shape, first + row, col)];
        }
      }
      held.push_back(std::move(part));
    }
    parts.push_back({held.end()[-2]->data(), held.end()[-1]->data(), 70, whole.scale});
  }
  const std::vector<float> want = one.Advance();
  one.towers() = parts;
  EXPECT_EQ(one.Advance(), want);
}

TEST_P(AdvanceTest, ADecayNearOneDoesNotDrift) {
  const double decay = 0.9999999;  // 1 − 1e-7, which float cannot tell from 1 − 1.2e-7
  Case<float> test({1, 1, {1}}, false, decay, 1 - decay);
  const_cast<float&>(test.towers()[0].left[0]) = 1;
  const_cast<float&>(test.towers()[0].right[0]) = 1;
  test.from() = {1};
  for (int step = 0; step < 100000; ++step) test.from() = test.Advance();
  EXPECT_NEAR(test.from()[0], 1, 1e-7);
}

TEST_P(AdvanceTest, ExtremesGoBy64Bits) {
  for (const auto& [decay, weight] :
       {std::pair(1e-40, 1.0), {1.0, 1e-40}, {0.5, 1e35}, {0.0, 1.0}}) {
    Case<float> test({20, 50, {3}}, true, decay, weight);
    const std::vector<float> want = test.Defined();
    EXPECT_EQ(test.Advance(), want);
    const std::vector<double> reference = test.Reference();
    for (size_t k = 0; k < want.size(); ++k) {
      EXPECT_NEAR(want[k], reference[k], 1e-6 * reference[k]) << decay << " " << weight;
    }
  }
}

TEST_P(AdvanceTest, KeepsSubnormals) {
  Case<float> test({1, 1, {1}}, false, 1, 1);
  const_cast<float&>(test.towers()[0].left[0]) = 0x1p-70f;
  const_cast<float&>(test.towers()[0].right[0]) = 0x1p-70f;
  test.from() = {0x1p-149f};
  EXPECT_EQ(test.Advance()[0], 0x1p-140f + 0x1p-149f);
}

TEST_P(AdvanceTest, TellsOverflowWhereverItIs) {
  for (const int64_t place : {0, 17, 47, 48, 52}) {
    Case<float> test({20, 53, {300}}, true, 1, 1);
    test.from()[20 * 53 + place] = std::numeric_limits<float>::max();
    const PackedShape right{300, 53, kRightPanelLines};
    const_cast<float*>(test.towers()[0].right)[PackedIndex<float>(right, 299, place)] = 0x1p120f;
    const std::vector<float> got = test.Advance();
    EXPECT_TRUE(std::isinf(got[20 * 53 + place]));
    EXPECT_TRUE(std::isinf(test.largest())) << place;
  }
}

FISHERD_FOR_EVERY_TARGET(AdvanceTest);

// Bits do not depend on the target, if it fuses.
TEST(AdvanceTargetsTest, AllWithFmaHaveTheSameBits) {
  Case<float> narrow({33, 97, {600, 100}}, true);
  Case<double> wide({33, 97, {600, 100}}, true);
  const std::vector<float> want = narrow.Advance();
  const std::vector<double> want_wide = wide.Advance();
  for (const std::string& target : AvailableTargets()) {
    ASSERT_TRUE(ForceTarget(target));
    if (!TargetHasFma()) continue;
    EXPECT_EQ(narrow.Advance(), want) << target;
    EXPECT_EQ(wide.Advance(), want_wide) << target;
  }
  ChooseBestTarget();
}

}  // namespace
}  // namespace fisherd::kernels
