#include "core/kinds/fully_connected_diagonal/batch.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr DataType kStates[] = {DataType::kFloat32, DataType::kFloat64};
constexpr DataType kWireTypes[] = {DataType::kFloat32, DataType::kFloat64, DataType::kBfloat16,
                                   DataType::kFloat16};

// The squares row by row, from where they are packed.
std::vector<double> Squares(const void* squares, DataType state,
                            const kernels::PackedShape& shape) {
  return WithStateType(state, [&]<typename T>(std::type_identity<T>) {
    const T* packed = static_cast<const T*>(squares);
    std::vector<double> values;
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t col = 0; col < shape.cols; ++col) {
        values.push_back(packed[kernels::PackedIndex<T>(shape, row, col)]);
      }
    }
    return values;
  });
}

std::vector<double> Left(const FullyConnectedDiagonalBatch& batch, DataType state, int64_t cols) {
  return Squares(batch.squares().left, state,
                 {batch.squares().rows, cols, kernels::kLeftPanelLines});
}

std::vector<double> Right(const FullyConnectedDiagonalBatch& batch, DataType state, int64_t cols) {
  return Squares(batch.squares().right, state,
                 {batch.squares().rows, cols, kernels::kRightPanelLines});
}

double MaxElement(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

struct Filled {
  std::unique_ptr<FullyConnectedDiagonalBatch> batch;
  absl::Status status;
};

Filled FillNew(const reference::Tower& tower, DataType state = DataType::kFloat32,
               DataType wire = DataType::kFloat64) {
  Filled filled{NewFullyConnectedDiagonalBatch(HeaderOf(tower, wire), state, nullptr), {}};
  filled.status = Fill(*filled.batch, tower, wire);
  return filled;
}

// A tower of 2 rows with 3 inputs and 2 outputs, all ones.
reference::Tower Ones(int sources = 1) {
  reference::Tower tower{.inputs = DenseOf(2, 3, std::vector<double>(6, 1))};
  for (int s = 0; s < sources; ++s) {
    tower.outputs_grads.push_back(DenseOf(2, 2, std::vector<double>(4, 1)));
  }
  return tower;
}

TEST(BatchTest, SquaresInEveryType) {
  std::mt19937 random(1);
  for (const DataType state : kStates) {
    for (const DataType wire : kWireTypes) {
      const reference::Tower tower = RandomTower(random, 5, 7, 3);
      const Filled filled = FillNew(tower, state, wire);
      ASSERT_EQ(filled.status, absl::OkStatus());
      std::vector<double> a = tower.inputs.values;  // exact in bfloat16, so its squares in float
      for (double& x : a) x = std::pow(FromBytes(ToBytes({x}, wire), wire)[0], 2);
      std::vector<double> g = tower.outputs_grads[0].values;
      for (double& x : g) x = std::pow(FromBytes(ToBytes({x}, wire), wire)[0], 2);
      EXPECT_EQ(Left(*filled.batch, state, 7), a);
      EXPECT_EQ(Right(*filled.batch, state, 3), g);
      EXPECT_EQ(filled.batch->squares().rows, 5);
      EXPECT_EQ(filled.batch->examples(), 5);
      EXPECT_EQ(filled.batch->squares().left_max, MaxElement(a));
      EXPECT_EQ(filled.batch->squares().right_max, MaxElement(g));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(filled.batch->squares().left) % kAlignment, 0);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(filled.batch->squares().right) % kAlignment, 0);
    }
  }
}

TEST(BatchTest, SourcesAddInAscendingOrder) {
  reference::Tower tower = Ones(3);
  tower.outputs_grads[0].values = {1, 0, 2, 0x1p12};
  tower.outputs_grads[1].values = {2, 3, 0, 0x1p-12};
  tower.outputs_grads[2].values = {4, 1, 0, 0x1p-12};
  const Filled filled = FillNew(tower);
  ASSERT_EQ(filled.status, absl::OkStatus());
  // In float32 each small square is lost on its own; their sum first would not be.
  EXPECT_EQ(Right(*filled.batch, DataType::kFloat32, 2), (std::vector<double>{21, 10, 4, 0x1p24}));
  EXPECT_EQ(filled.batch->squares().right_max, 0x1p24);
}

TEST(BatchTest, RunsOfAnySizeAreTheSame) {
  std::mt19937 random(2);
  const reference::Tower tower = RandomTower(random, 4, 9, 9, 2);
  const Filled whole = FillNew(tower, DataType::kFloat32, DataType::kFloat32);
  const auto tensors = TensorBytes(tower, DataType::kFloat32);
  for (const size_t run : {1, 2, 5, 11}) {
    auto batch = NewFullyConnectedDiagonalBatch(HeaderOf(tower, DataType::kFloat32),
                                                DataType::kFloat32, nullptr);
    for (size_t t = 0; t < tensors.size(); ++t) {
      for (size_t first = 0; first < 36; first += run) {
        const size_t count = std::min(run, 36 - first);
        std::vector<std::byte> odd(1);  // so that elements are not aligned
        odd.insert(odd.end(), tensors[t].begin() + first * 4,
                   tensors[t].begin() + (first + count) * 4);
        ASSERT_EQ(batch->Add(t, first, std::span(odd).subspan(1)), absl::OkStatus());
      }
    }
    ASSERT_EQ(batch->Finish(), absl::OkStatus());
    EXPECT_EQ(Left(*batch, DataType::kFloat32, 9), Left(*whole.batch, DataType::kFloat32, 9));
    EXPECT_EQ(Right(*batch, DataType::kFloat32, 9), Right(*whole.batch, DataType::kFloat32, 9));
    EXPECT_EQ(batch->squares().right_max, whole.batch->squares().right_max);
  }
}

TEST(BatchTest, GradientScaleIsTakenIn64Bits) {
  reference::Tower tower = Ones();
  tower.gradient_scale = 1 + 0x1p-40;  // 1 in float32
  tower.outputs_grads[0].values = {1 - 0x1p-24, 3, 0, -2};
  const Filled filled = FillNew(tower, DataType::kFloat32, DataType::kFloat32);
  ASSERT_EQ(filled.status, absl::OkStatus());
  std::vector<double> want;
  for (const double g : tower.outputs_grads[0].values) {
    const float scaled = static_cast<float>(tower.gradient_scale * g);
    want.push_back(scaled * scaled);
  }
  EXPECT_EQ(Right(*filled.batch, DataType::kFloat32, 2), want);
  EXPECT_EQ(Left(*filled.batch, DataType::kFloat32, 3), std::vector<double>(6, 1));
}

TEST(BatchTest, GradientScaleBeyondFloat32Works) {
  reference::Tower tower = Ones();
  tower.gradient_scale = 0x1p150;
  tower.outputs_grads[0].values = {0x1p-140, 0x1p-149, 0, -0x1p-149};
  const Filled filled = FillNew(tower, DataType::kFloat32, DataType::kFloat32);
  ASSERT_EQ(filled.status, absl::OkStatus());
  EXPECT_EQ(Right(*filled.batch, DataType::kFloat32, 2), (std::vector<double>{0x1p20, 4, 0, 4}));
}

TEST(BatchTest, ZerosAndSubnormalsAreKept) {
  reference::Tower tower = Ones();
  tower.inputs.values = {0, -0.0, 0x1p-70, 0x1p-74, 0x1p-80, 1};
  const Filled filled = FillNew(tower);
  ASSERT_EQ(filled.status, absl::OkStatus());
  EXPECT_EQ(Left(*filled.batch, DataType::kFloat32, 3),
            (std::vector<double>{0, 0, 0x1p-140, 0x1p-148, 0, 1}));
}

TEST(BatchTest, TheLargestFiniteInputsAreTaken) {
  reference::Tower tower = Ones();
  tower.inputs.values[4] = 0x1.FFFFFEp63;
  tower.outputs_grads[0].values[1] = -0x1.FFFFFEp63;
  const Filled narrow = FillNew(tower, DataType::kFloat32, DataType::kFloat32);
  ASSERT_EQ(narrow.status, absl::OkStatus());
  EXPECT_EQ(narrow.batch->squares().left_max, 0x1.FFFFFCp127);
  tower.inputs.values[4] = 0x1.FFFFFEp511;
  EXPECT_EQ(FillNew(tower, DataType::kFloat64).status, absl::OkStatus());
}

// --- What is refused ---

void ExpectBadElement(const absl::Status& status, const std::string& message,
                      const std::string& field, const std::string& row, const std::string& column) {
  EXPECT_THAT(status,
              IsError(absl::StatusCode::kInvalidArgument, reason::kNonFiniteInput, message));
  EXPECT_EQ(FieldOf(status), field);
  EXPECT_EQ(FieldOf(status, "row"), row);
  EXPECT_EQ(FieldOf(status, "column"), column);
}

TEST(BatchTest, RefusesNanAndInfinityInEveryType) {
  for (const DataType state : kStates) {
    for (const DataType wire : kWireTypes) {
      for (const double bad : {kInfinity, -kInfinity, std::nan(""), -std::nan("")}) {
        reference::Tower tower = Ones(2);
        tower.inputs.values[5] = bad;
        const absl::Status in_inputs = FillNew(tower, state, wire).status;
        ExpectBadElement(in_inputs, "inputs, row 1, column 2: ", "inputs", "1", "2");
        EXPECT_THAT(std::string(in_inputs.message()), ::testing::HasSubstr("expected a finite"));
        for (const int source : {0, 1}) {
          tower = Ones(2);
          tower.outputs_grads[source].values[2] = bad;
          const absl::Status status = FillNew(tower, state, wire).status;
          ExpectBadElement(status,
                           absl::StrFormat("outputs_grads of source %d, row 1, column 0: ", source),
                           "outputs_grads", "1", "0");
          EXPECT_EQ(FieldOf(status, "source"), absl::StrCat(source));
        }
      }
    }
  }
}

TEST(BatchTest, RefusesSquaresThatOverflow) {
  reference::Tower tower = Ones();
  tower.inputs.values[3] = 0x1p64;
  ExpectBadElement(FillNew(tower).status, "1.84467e+19, whose square overflows FLOAT32", "inputs",
                   "1", "0");
  EXPECT_EQ(FillNew(tower, DataType::kFloat64).status, absl::OkStatus());
  tower.inputs.values[3] = 1e300;  // beyond float32 itself
  ExpectBadElement(FillNew(tower).status, "1e+300, whose square overflows FLOAT32", "inputs", "1",
                   "0");
  ExpectBadElement(FillNew(tower, DataType::kFloat64).status,
                   "1e+300, whose square overflows FLOAT64", "inputs", "1", "0");
}

TEST(BatchTest, RefusesScaledSquaresThatOverflow) {
  for (const double scale : {1e20, 1e300}) {
    reference::Tower tower = Ones();
    tower.gradient_scale = scale;
    ExpectBadElement(FillNew(tower).status,
                     absl::StrFormat("1 times gradient_scale %g, whose square overflows", scale),
                     "outputs_grads", "0", "0");
  }
}

TEST(BatchTest, RefusesSumsOverSourcesThatOverflow) {
  reference::Tower tower = Ones(2);
  tower.outputs_grads[0].values[3] = tower.outputs_grads[1].values[3] = 0x1.8p63;
  const absl::Status status = FillNew(tower).status;
  ExpectBadElement(status, "makes the sum over the sources overflow FLOAT32", "outputs_grads", "1",
                   "1");
  EXPECT_EQ(FieldOf(status, "source"), "1");
}

TEST(BatchTest, FindsTheFirstBadElementOfARun) {
  for (size_t bad = 0; bad < 100; ++bad) {
    reference::Tower tower{.inputs = reference::Dense(10, 10)};
    tower.outputs_grads.push_back(reference::Dense(10, 1));
    for (size_t k = bad; k < 100; k += 13) tower.inputs.values[k] = std::nan("");
    const absl::Status status = FillNew(tower).status;
    EXPECT_EQ(FieldOf(status, "row"), absl::StrCat(bad / 10));
    EXPECT_EQ(FieldOf(status, "column"), absl::StrCat(bad % 10));
  }
}

// --- Row weights ---

TEST(BatchTest, RowWeightsMultiplyTheGradientsSquares) {
  for (const DataType wire : kWireTypes) {
    reference::Tower tower = Ones(2);
    tower.row_weights = {0, 2.5};
    tower.outputs_grads[1].values = {3, 0, 3, 0};
    const Filled filled = FillNew(tower, DataType::kFloat32, wire);
    ASSERT_EQ(filled.status, absl::OkStatus());
    EXPECT_EQ(Right(*filled.batch, DataType::kFloat32, 2), (std::vector<double>{0, 0, 25, 2.5}));
    EXPECT_EQ(Left(*filled.batch, DataType::kFloat32, 3), std::vector<double>(6, 1));
    EXPECT_EQ(filled.batch->examples(), 2.5);
    EXPECT_EQ(filled.batch->squares().right_max, 25);
  }
}

TEST(BatchTest, TheMaximumIsOfTheWeightedSquares) {
  reference::Tower tower = Ones();
  tower.row_weights = {0.25, 0.5};
  EXPECT_EQ(FillNew(tower).batch->squares().right_max, 0.5);
}

TEST(BatchTest, RefusesBadRowWeights) {
  for (const double bad : {kInfinity, std::nan("")}) {
    reference::Tower tower = Ones();
    tower.row_weights = {1, bad};
    ExpectBadElement(FillNew(tower).status, "row_weights, row 1: ", "row_weights", "1", "none");
  }
  reference::Tower tower = Ones();
  tower.row_weights = {-1, 2};
  EXPECT_THAT(FillNew(tower).status,
              IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument,
                      "row_weights, row 0: -1; expected a finite weight, 0 or above"));
}

TEST(BatchTest, RefusesRowWeightsWithoutAUsableSum) {
  for (const auto& weights : {std::vector<double>{0, 0}, {0, 1e-310}, {1e300, 1e300}}) {
    reference::Tower tower = Ones();
    tower.row_weights = weights;
    const absl::Status status = FillNew(tower, DataType::kFloat64).status;
    EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument,
                                "expected a positive sum"));
    EXPECT_EQ(FieldOf(status), "row_weights");
  }
}

TEST(BatchTest, RefusesWeightedSquaresThatOverflow) {
  reference::Tower tower = Ones();
  tower.row_weights = {1, 1e30};
  tower.outputs_grads[0].values[3] = 1e6;
  ExpectBadElement(FillNew(tower).status,
                   "row_weights, row 1: 1e+30, times the squared gradient 1e+12 of column 1, "
                   "overflows FLOAT32",
                   "row_weights", "1", "none");
}

// Every row of either side takes whole cache lines.
TEST(BatchTest, Bytes) {
  reference::Tower tower = Ones(4);
  EXPECT_EQ(
      FullyConnectedDiagonalBatchBytes(HeaderOf(tower, DataType::kFloat16), DataType::kFloat32),
      2 * (1 + 1) * 64);
  tower.row_weights = {1, 1};
  EXPECT_EQ(
      FullyConnectedDiagonalBatchBytes(HeaderOf(tower, DataType::kFloat16), DataType::kFloat64),
      2 * (1 + 1) * 64 + 2 * 8);
}

}  // namespace
}  // namespace fisherd::core
