#include "core/kinds/fully_connected_diagonal/fully_connected_diagonal.h"

#include <limits>

#include "absl/strings/str_format.h"
#include "tests/core/test_backend.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

using reference::Dense;
using reference::Tower;

constexpr DataType kWireTypes[] = {DataType::kFloat32, DataType::kFloat64, DataType::kBfloat16,
                                   DataType::kFloat16};

FactorSpec Spec(int64_t inputs, int64_t outputs, bool has_bias, DataType dtype, int sources = 1) {
  return {.kind =
              FullyConnectedDiagonalSpec{
                  .input_size = inputs, .output_size = outputs, .has_bias = has_bias},
          .sources = sources,
          .dtype = dtype};
}

std::unique_ptr<const Kind> KindOf(const FactorSpec& spec) {
  auto kind = MakeKind(spec);
  EXPECT_EQ(kind.status(), absl::OkStatus());
  return *std::move(kind);
}

// A factor's state and its moving average, without any of the protocol.
class Average {
 public:
  explicit Average(const FactorSpec& spec) : spec_(spec), kind_(KindOf(spec)) {
    state_ = TestBackend().NewMatrix(kind_->state_shape());
    const double value = spec.initial_covariance == InitialCovariance::kOnes ? 1 : 0;
    EXPECT_EQ(state_->Fill(value), absl::OkStatus());
  }

  void Step(const StepParameters& step, const std::vector<Tower>& towers,
            DataType wire = DataType::kFloat32) {
    std::vector<std::unique_ptr<Batch>> batches;
    std::vector<const Batch*> pointers;
    for (const Tower& tower : towers) {
      batches.push_back(BatchOf(*kind_, tower, wire));
      pointers.push_back(batches.back().get());
    }
    bound_ = kind_->BoundOf(pointers);
    kind_->Advance(step, pointers, false, *state_, *state_, TestBackend());
    total_weight_ = step.decay * total_weight_ + step.weight;
  }

  std::vector<double> Read(std::optional<LinearOperatorDiag::Power> power = std::nullopt) const {
    const auto op = kind_->Read({.matrix = state_, .divisor = divisor()}, power);
    const TensorView view{.dtype = spec_.dtype};
    EXPECT_EQ(op->CheckFinite(view.dtype), absl::OkStatus());
    std::vector<std::byte> bytes(op->dimension() * SizeOf(view.dtype));
    EXPECT_EQ(op->Elements(view, 0, 0, bytes), absl::OkStatus());
    return FromBytes(bytes, view.dtype);
  }

  double bound() const { return bound_; }
  double total_weight() const { return total_weight_; }

 private:
  double divisor() const { return spec_.zero_debias ? total_weight_ : 1; }

  const FactorSpec spec_;
  const std::unique_ptr<const Kind> kind_;
  std::shared_ptr<Matrix> state_;
  double total_weight_ = 0;
  double bound_ = 0;
};

Dense Times(double factor, Dense dense) {
  for (double& x : dense.values) x *= factor;
  return dense;
}

std::vector<double> Times(double factor, std::vector<double> values) {
  for (double& x : values) x *= factor;
  return values;
}

// Rows [first, first + count) of a tower, as a tower of their own.
Tower RowsOf(const Tower& tower, int64_t first, int64_t count) {
  const auto rows = [&](const Dense& dense) {
    Dense part(count, dense.cols);
    std::copy_n(dense.values.begin() + first * dense.cols, count * dense.cols, part.values.begin());
    return part;
  };
  Tower part{.inputs = rows(tower.inputs), .gradient_scale = tower.gradient_scale};
  for (const Dense& grads : tower.outputs_grads) part.outputs_grads.push_back(rows(grads));
  return part;
}

// --- Golden values (SPEC §7), in both types ---

class GoldenTest : public ::testing::TestWithParam<DataType> {
 protected:
  static constexpr StepParameters kOnce{.decay = 0, .weight = 1};
  const Dense a_ = DenseOf(2, 2, {1, 2, 3, 4});
  const Dense g_ = DenseOf(2, 2, {1, -1, 2, 0.5});
  const Tower tower_{.inputs = a_, .outputs_grads = {g_}};
  const Tower twice_a_{.inputs = Times(2, a_), .outputs_grads = {g_}};
  const std::vector<double> c_ = {18.5, 1.625, 34, 4, 2.5, 0.625};
  FactorSpec spec_ = Spec(2, 2, true, GetParam());
  // As many digits as SPEC §7 gives, or as float32 has.
  const double tolerance_ = GetParam() == DataType::kFloat64 ? 2e-8 : 3e-7;
};

TEST_P(GoldenTest, Covariance) {
  Average average(spec_);
  average.Step(kOnce, {tower_});
  EXPECT_EQ(average.Read(), c_);
}

TEST_P(GoldenTest, OnesWithoutDebias) {
  spec_.zero_debias = false;
  spec_.initial_covariance = InitialCovariance::kOnes;
  Average average(spec_);
  average.Step({.decay = .5, .weight = .5}, {tower_});
  EXPECT_EQ(average.Read(), (std::vector<double>{9.75, 1.3125, 17.5, 2.5, 1.75, 0.8125}));
}

TEST_P(GoldenTest, DebiasWithConstantDecay) {
  Average average(spec_);
  average.Step({.decay = .9, .weight = 1 - .9}, {tower_});
  average.Step({.decay = .9, .weight = 1 - .9}, {twice_a_});
  ExpectNear(average.Read(), {47.71052632, 4.19078947, 87.68421053, 10.31578947, 2.5, 0.625},
             tolerance_);
}

TEST_P(GoldenTest, DebiasWithVaryingDecay) {
  Average average(spec_);
  average.Step({.decay = .5, .weight = .5}, {tower_});
  average.Step({.decay = .9, .weight = 1 - .9}, {twice_a_});
  ExpectNear(average.Read(), {28.59090909, 2.51136364, 52.54545455, 6.18181818, 2.5, 0.625},
             tolerance_);
  EXPECT_NEAR(average.total_weight(), 0.55, 1e-15);
}

TEST_P(GoldenTest, Powers) {
  Average average(spec_);
  average.Step(kOnce, {tower_});
  ExpectNear(average.Read({{.exponent = -1, .damping = .5}}),
             {.05263158, .47058824, .02898551, .22222222, .33333333, .88888889}, 2e-7);
  const std::vector<double> cholesky = average.Read({{.exponent = .5, .damping = .5}});
  ExpectNear({cholesky[0], cholesky[1]}, {4.35889894, 1.45773797}, tolerance_);
  const std::vector<double> power = average.Read({{.exponent = -.75, .damping = .5}});
  ExpectNear({power[0], power[1]}, {.10988409, .56817327}, 1e-7);
}

TEST_P(GoldenTest, SourcesAndTowers) {
  spec_.sources = 2;
  const Tower both{.inputs = a_, .outputs_grads = {g_, Times(2, g_)}};
  Average average(spec_);
  average.Step(kOnce, {RowsOf(both, 0, 1), RowsOf(both, 1, 1)});
  EXPECT_EQ(average.Read(), Times(5, c_));
}

TEST_P(GoldenTest, ExampleWeighted) {
  spec_.tower_weighting = TowerWeighting::kExampleWeighted;
  const Tower twice{.inputs = DenseOf(2, 2, {3, 4, 3, 4}),
                    .outputs_grads = {DenseOf(2, 2, {2, 0.5, 2, 0.5})}};
  Average average(spec_);
  average.Step(kOnce, {RowsOf(tower_, 0, 1), twice});
  ExpectNear(average.Read(), {24.33333333, 1.83333333, 44, 4, 3, 0.5}, tolerance_);
}

// What a sender that reduces its batch itself would send.
std::unique_ptr<Batch> ContributionOf(const Kind& kind, const Tower& tower, bool has_bias) {
  std::vector<double> sum(kind.state_shape().size());
  double examples = tower.inputs.rows;
  if (!tower.row_weights.empty()) {
    examples = std::accumulate(tower.row_weights.begin(), tower.row_weights.end(), 0.0);
  }
  for (const Dense& grads : tower.outputs_grads) {
    for (int64_t n = 0; n < tower.inputs.rows; ++n) {
      const double weight = tower.row_weights.empty() ? 1 : tower.row_weights[n];
      for (int64_t i = 0; i < tower.inputs.cols + has_bias; ++i) {
        const double a = i < tower.inputs.cols ? tower.inputs.values[n * tower.inputs.cols + i] : 1;
        for (int64_t o = 0; o < grads.cols; ++o) {
          const double g = grads.values[n * grads.cols + o] * tower.gradient_scale;
          sum[i * grads.cols + o] += weight * a * a * g * g / examples;
        }
      }
    }
  }
  const MatrixShape shape = kind.state_shape();
  BatchHeader header{.rows = tower.inputs.rows, .form = BatchForm::kContribution};
  header.tensors = {{TensorRole::kContribution, 0, DataType::kFloat64, {shape.rows, shape.cols}}};
  header.examples = examples;
  EXPECT_EQ(kind.CheckBatch(header), absl::OkStatus());
  std::unique_ptr<Batch> batch = kind.NewBatch(header, nullptr);
  EXPECT_EQ(batch->Add(0, 0, ToBytes(sum, DataType::kFloat64)), absl::OkStatus());
  EXPECT_EQ(batch->Finish(), absl::OkStatus());
  return batch;
}

// Every mixture of towers that send rows and towers that send contributions.
TEST_P(GoldenTest, ContributionsCountAsTheirRowsWould) {
  std::mt19937 random(3);
  std::vector<Tower> towers = {RandomTower(random, 3, 4, 5, 2), RandomTower(random, 8, 4, 5, 2),
                               RandomTower(random, 1, 4, 5, 2)};
  towers[1].row_weights = {1, 0, 2, 0.5, 1, 1, 3, 0.25};
  towers[2].gradient_scale = 3;
  for (const auto weighting : {TowerWeighting::kTowerMean, TowerWeighting::kExampleWeighted}) {
    FactorSpec spec = Spec(4, 5, true, GetParam(), 2);
    spec.tower_weighting = weighting;
    Average rows(spec);
    rows.Step({.decay = 0.5, .weight = 2}, towers);
    for (unsigned reduced = 0; reduced < 8; ++reduced) {
      const auto kind = KindOf(spec);
      std::vector<std::unique_ptr<Batch>> batches;
      std::vector<const Batch*> pointers;
      for (size_t t = 0; t < towers.size(); ++t) {
        batches.push_back(reduced >> t & 1 ? ContributionOf(*kind, towers[t], true)
                                           : BatchOf(*kind, towers[t]));
        pointers.push_back(batches.back().get());
      }
      const auto state = TestBackend().NewMatrix(kind->state_shape());
      EXPECT_EQ(state->Fill(0), absl::OkStatus());
      const double largest =
          kind->Advance({.decay = 0.5, .weight = 2}, pointers, true, *state, *state, TestBackend());
      const std::vector<double> got = ValuesOf(*state);
      ExpectNear(got, Times(2, rows.Read()), GetParam() == DataType::kFloat64 ? 1e-14 : 1e-6);
      EXPECT_EQ(largest, *std::max_element(got.begin(), got.end()));
      EXPECT_LE(largest, 2 * kind->BoundOf(pointers));
    }
  }
}

TEST_P(GoldenTest, RowWeights) {
  Tower weighted = tower_;
  weighted.row_weights = {1, 3};
  Average average(spec_);
  average.Step(kOnce, {weighted});
  EXPECT_EQ(average.Read(), (std::vector<double>{27.25, 1.9375, 49, 4, 3.25, .4375}));
}

TEST_P(GoldenTest, BatchMeanGradientsWithTheirScale) {
  Tower mean = tower_;
  mean.outputs_grads = {Times(0.5, g_)};
  mean.gradient_scale = 2;
  Average average(spec_);
  average.Step(kOnce, {mean});
  EXPECT_EQ(average.Read(), c_);
}

INSTANTIATE_TEST_SUITE_P(Types, GoldenTest,
                         ::testing::Values(DataType::kFloat32, DataType::kFloat64));

// --- Properties, over many shapes ---

struct Shape {
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << shape.rows << " rows, " << shape.inputs << "x" << shape.outputs;
}

class PropertyTest : public ::testing::TestWithParam<std::tuple<Shape, bool, DataType>> {
 protected:
  FactorSpec SpecWith(int sources) const {
    return Spec(shape_.inputs, shape_.outputs, has_bias_, dtype_, sources);
  }
  Tower Random(int sources = 1) {
    return RandomTower(random_, shape_.rows, shape_.inputs, shape_.outputs, sources);
  }

  std::mt19937 random_{11};
  const Shape shape_ = std::get<0>(GetParam());
  const bool has_bias_ = std::get<1>(GetParam());
  const DataType dtype_ = std::get<2>(GetParam());
  // Chains of 256 rows err by n·2^-24 at the very worst.
  const double tolerance_ = dtype_ == DataType::kFloat64 ? 1e-13 : 2e-6;
};

TEST_P(PropertyTest, MatchesTheReference) {
  for (const DataType wire : kWireTypes) {
    for (const bool example_weighted : {false, true}) {
      std::vector<Tower> towers = {Random(2), Random(2)};
      if (shape_.rows > 1) towers.push_back(RowsOf(Random(2), 0, shape_.rows - 1));
      towers[0].gradient_scale = 3.5;
      for (int64_t row = 0; row < shape_.rows; ++row) towers[1].row_weights.push_back(row % 3 + 1);
      // What is compared is the arithmetic, not the wire's rounding.
      for (Tower& tower : towers) {
        for (Dense* dense : {&tower.inputs, &tower.outputs_grads[0], &tower.outputs_grads[1]}) {
          dense->values = FromBytes(ToBytes(dense->values, wire), wire);
        }
      }
      FactorSpec spec = SpecWith(2);
      if (example_weighted) spec.tower_weighting = TowerWeighting::kExampleWeighted;
      Average average(spec);
      average.Step({.decay = 0, .weight = 1}, towers, wire);
      const std::vector<double> want =
          reference::Covariance(towers, has_bias_, example_weighted).values;
      ExpectNear(average.Read(), want, tolerance_);
      EXPECT_LE(*std::max_element(want.begin(), want.end()), average.bound());
      EXPECT_LT(average.bound(), 1e9);
    }
  }
}

TEST_P(PropertyTest, OneTowerEqualsTwoParts) {
  Tower whole = Random();
  const Tower first = whole;
  const Tower second = RowsOf(Random(), 0, (shape_.rows + 1) / 2);
  const auto append = [](Dense& dense, const Dense& more) {
    dense.rows += more.rows;
    dense.values.insert(dense.values.end(), more.values.begin(), more.values.end());
  };
  append(whole.inputs, second.inputs);
  append(whole.outputs_grads[0], second.outputs_grads[0]);
  FactorSpec spec = SpecWith(1);
  spec.tower_weighting = TowerWeighting::kExampleWeighted;
  Average one(spec);
  one.Step({.decay = 0, .weight = 1}, {whole});
  Average two(spec);
  two.Step({.decay = 0, .weight = 1}, {first, second});
  ExpectNear(two.Read(), one.Read(), tolerance_);
}

TEST_P(PropertyTest, SourcesAdd) {
  const Tower both = Random(2);
  Average together(SpecWith(2));
  together.Step({.decay = 0, .weight = 1}, {both});
  std::vector<double> sum(together.Read().size());
  for (const Dense& grads : both.outputs_grads) {
    Average apart(SpecWith(1));
    apart.Step({.decay = 0, .weight = 1}, {{.inputs = both.inputs, .outputs_grads = {grads}}});
    const std::vector<double> part = apart.Read();
    for (size_t k = 0; k < sum.size(); ++k) sum[k] += part[k];
  }
  ExpectNear(together.Read(), sum, tolerance_);
}

TEST_P(PropertyTest, BiasIsTheLastRowAndChangesNoOther) {
  const Tower tower = Random();
  FactorSpec spec = SpecWith(1);
  std::get<FullyConnectedDiagonalSpec>(spec.kind).has_bias = true;
  Average with(spec);
  with.Step({.decay = 0, .weight = 1}, {tower});
  std::get<FullyConnectedDiagonalSpec>(spec.kind).has_bias = false;
  Average without(spec);
  without.Step({.decay = 0, .weight = 1}, {tower});
  std::vector<double> weight = with.Read();
  const std::vector<double> bias(weight.end() - shape_.outputs, weight.end());
  weight.resize(weight.size() - shape_.outputs);
  EXPECT_EQ(weight, without.Read());
  std::vector<double> want(shape_.outputs);
  for (int64_t row = 0; row < shape_.rows; ++row) {
    for (int64_t out = 0; out < shape_.outputs; ++out) {
      const double g = tower.outputs_grads[0](row, out);
      want[out] += g * g / shape_.rows;
    }
  }
  ExpectNear(bias, want, tolerance_);
}

TEST_P(PropertyTest, ConstantDecayEqualsTheClosedForm) {
  constexpr double kDecay = 0.8;
  constexpr int kSteps = 4;
  Average average(SpecWith(1));
  std::vector<double> want;
  for (int step = 1; step <= kSteps; ++step) {
    const Tower tower = Random();
    average.Step({.decay = kDecay, .weight = 1 - kDecay}, {tower});
    const Dense c = reference::Covariance({tower}, has_bias_, false);
    want.resize(c.values.size());
    // Σ_k decay^(n−k)·(1 − decay)·C_k / (1 − decay^n)
    const double share =
        std::pow(kDecay, kSteps - step) * (1 - kDecay) / (1 - std::pow(kDecay, kSteps));
    for (size_t k = 0; k < want.size(); ++k) want[k] += share * c.values[k];
  }
  ExpectNear(average.Read(), want, 2 * tolerance_);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PropertyTest,
    ::testing::Combine(::testing::Values(Shape{1, 1, 1}, Shape{2, 1, 9}, Shape{3, 9, 1},
                                         Shape{255, 7, 5}, Shape{256, 15, 17}, Shape{257, 17, 15},
                                         Shape{512, 3, 33}, Shape{513, 1, 1}, Shape{4, 63, 129},
                                         Shape{4, 65, 127}, Shape{1, 64, 128}),
                       ::testing::Bool(),
                       ::testing::Values(DataType::kFloat32, DataType::kFloat64)));

// --- The kind's answers ---

TEST(FullyConnectedDiagonalTest, StateShape) {
  const auto with = KindOf(Spec(3, 2, true, DataType::kFloat64));
  EXPECT_EQ(with->state_shape(), (MatrixShape{.rows = 4, .cols = 2, .dtype = DataType::kFloat64}));
  EXPECT_EQ(with->name(), "FullyConnectedDiagonal");
  const auto without = KindOf(Spec(3, 2, false, DataType::kFloat32));
  EXPECT_EQ(without->state_shape(),
            (MatrixShape{.rows = 3, .cols = 2, .dtype = DataType::kFloat32}));
}

TEST(FullyConnectedDiagonalTest, RefusesSizes) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const auto refused = [](int64_t inputs, int64_t outputs, const std::string& field,
                          const std::string& message) {
    const absl::Status status = MakeKind(Spec(inputs, outputs, true, DataType::kFloat64)).status();
    EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, message));
    EXPECT_EQ(FieldOf(status), field);
  };
  refused(0, 1, "input_size", "input_size is 0; expected at least 1");
  refused(-kMax, 1, "input_size", "expected at least 1");
  refused(1, 0, "output_size", "output_size is 0; expected at least 1");
  refused(1, -1, "output_size", "expected at least 1");
  refused(kMax, 1, "input_size", "expected at most");
  refused(1, kMax, "input_size", "expected at most");
  refused(int64_t{1} << 32, int64_t{1} << 32, "input_size", "expected at most");
}

TEST(FullyConnectedDiagonalTest, HeldBytesAreTheBatchs) {
  std::mt19937 random(1);
  const auto kind = KindOf(Spec(3, 2, false, DataType::kFloat64, 2));
  EXPECT_EQ(kind->HeldBytes(HeaderOf(RandomTower(random, 7, 3, 2, 2), DataType::kFloat32)),
            7 * (1 + 1) * 64);
  EXPECT_EQ(KindOf(Spec(30, 20, true, DataType::kFloat32))
                ->HeldBytes(HeaderOf(RandomTower(random, 7, 30, 20, 1), DataType::kFloat32)),
            7 * (2 + 2) * 64);
}

// --- Headers ---

class CheckBatchTest : public ::testing::Test {
 protected:
  CheckBatchTest() {
    Tower tower{.inputs = Dense(4, 3), .outputs_grads = {Dense(4, 2), Dense(4, 2)}};
    header_ = HeaderOf(tower, DataType::kFloat32);
    tower.row_weights = {1, 1, 1, 1};
    weighted_ = HeaderOf(tower, DataType::kFloat32);
  }

  void ExpectRefused(const BatchHeader& header, const std::string& field,
                     const std::string& message) {
    const absl::Status status = kind_->CheckBatch(header);
    EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, message));
    EXPECT_EQ(FieldOf(status), field);
  }

  std::unique_ptr<const Kind> kind_ = KindOf(Spec(3, 2, true, DataType::kFloat32, 2));
  BatchHeader header_;
  BatchHeader weighted_;
};

TEST_F(CheckBatchTest, AcceptsBatches) {
  EXPECT_EQ(kind_->CheckBatch(header_), absl::OkStatus());
  EXPECT_EQ(kind_->CheckBatch(weighted_), absl::OkStatus());
  int next = 0;
  for (TensorSpec& tensor : weighted_.tensors) tensor.dtype = kWireTypes[next++];
  EXPECT_EQ(kind_->CheckBatch(weighted_), absl::OkStatus());
  header_.gradient_scale = 0x1p-1074;
  EXPECT_EQ(kind_->CheckBatch(header_), absl::OkStatus());
}

TEST_F(CheckBatchTest, RefusesRows) {
  for (const int64_t bad : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    header_.rows = bad;
    ExpectRefused(header_, "rows", absl::StrFormat("rows is %d; expected at least 1", bad));
  }
  for (const int64_t bad : {int64_t{1} << 46, std::numeric_limits<int64_t>::max()}) {
    header_.rows = bad;
    for (TensorSpec& tensor : header_.tensors) tensor.shape[0] = bad;
    ExpectRefused(header_, "rows", absl::StrFormat("rows is %d; expected at most", bad));
  }
}

TEST_F(CheckBatchTest, RefusesGradientScales) {
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    header_.gradient_scale = bad;
    ExpectRefused(header_, "gradient_scale", "expected a finite number above 0");
  }
}

TEST_F(CheckBatchTest, RefusesAnotherNumberOfTensors) {
  BatchHeader header = header_;
  header.tensors.pop_back();
  ExpectRefused(header, "tensors", "2 tensors; expected inputs, 2 outputs_grads");
  header.tensors.clear();
  ExpectRefused(header, "tensors", "0 tensors");
  header = weighted_;
  header.tensors.push_back(header.tensors.back());
  ExpectRefused(header, "tensors", "5 tensors");
}

TEST_F(CheckBatchTest, RefusesAnotherOrder) {
  BatchHeader header = header_;
  std::swap(header.tensors[0], header.tensors[1]);
  ExpectRefused(header, "tensors",
                "tensor 0 is outputs_grads(source 0) FLOAT32 [4, 2]; expected inputs");
  header = header_;
  std::swap(header.tensors[1], header.tensors[2]);
  ExpectRefused(header, "tensors",
                "tensor 1 is outputs_grads(source 1) FLOAT32 [4, 2]; expected "
                "outputs_grads(source 0)");
  header = weighted_;
  std::swap(header.tensors[2], header.tensors[3]);
  ExpectRefused(header, "tensors", "tensor 2 is row_weights FLOAT32 [4]; expected outputs_grads");
  header = header_;
  header.tensors[2].source = 0;
  ExpectRefused(header, "tensors", "tensor 2 is outputs_grads(source 0)");
}

TEST_F(CheckBatchTest, RefusesShapes) {
  for (size_t tensor = 0; tensor < weighted_.tensors.size(); ++tensor) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{
             {}, {5}, {4, 1}, {4, 0}, {5, 3}, {5, 2}, {3, 4}, {4, 3, 1}, {4, -3}}) {
      BatchHeader header = weighted_;
      header.tensors[tensor].shape = shape;
      ExpectRefused(header, "tensors", absl::StrFormat("tensor %d is ", tensor));
    }
  }
}

TEST_F(CheckBatchTest, RefusesTypesAndRoles) {
  for (const DataType bad : {DataType::kUnspecified, static_cast<DataType>(77)}) {
    BatchHeader header = header_;
    header.tensors[1].dtype = bad;
    ExpectRefused(header, "tensors", "expected a dtype of FLOAT32, FLOAT64, BFLOAT16 or FLOAT16");
  }
  for (const TensorRole bad :
       {TensorRole::kUnspecified, TensorRole::kResult, static_cast<TensorRole>(77)}) {
    BatchHeader header = header_;
    header.tensors[0].role = bad;
    ExpectRefused(header, "tensors", "tensor 0 is ");
  }
  BatchHeader header = header_;
  header.tensors[0].source = 1;
  ExpectRefused(header, "tensors", "tensor 0 is inputs(source 1)");
}

TEST_F(CheckBatchTest, SourcesOutOfRange) {
  for (const int bad : {2, -1, std::numeric_limits<int>::max()}) {
    BatchHeader header = header_;
    header.tensors[2].source = bad;
    const absl::Status status = kind_->CheckBatch(header);
    EXPECT_THAT(status, IsError(absl::StatusCode::kOutOfRange, reason::kOutOfRange,
                                absl::StrFormat("source is %d; expected 0 to 1", bad)));
    EXPECT_EQ(FieldOf(status), "source");
  }
  // One source too many is a source out of range, not only a tensor too many.
  header_.tensors.push_back(header_.tensors.back());
  header_.tensors.back().source = 2;
  EXPECT_EQ(kind_->CheckBatch(header_).code(), absl::StatusCode::kOutOfRange);
}

// --- Bounds ---

double BoundOf(const FactorSpec& spec, const std::vector<Tower>& towers) {
  const auto kind = KindOf(spec);
  std::vector<std::unique_ptr<Batch>> batches;
  std::vector<const Batch*> pointers;
  for (const Tower& tower : towers) {
    batches.push_back(BatchOf(*kind, tower, DataType::kFloat64));
    pointers.push_back(batches.back().get());
  }
  return kind->BoundOf(pointers);
}

Tower Constant(int64_t rows, double a, double g) {
  return {.inputs = DenseOf(rows, 1, std::vector<double>(rows, a)),
          .outputs_grads = {DenseOf(rows, 1, std::vector<double>(rows, g))}};
}

TEST(BoundOfTest, IsTightForConstants) {
  const FactorSpec spec = Spec(1, 1, false, DataType::kFloat32);
  for (const int64_t rows : {1, 2, 256, 257, 1000}) {
    const double bound = BoundOf(spec, {Constant(rows, 2, 3), Constant(rows + 1, 2, 3)});
    EXPECT_GE(bound, 36);
    EXPECT_LE(bound, 36.1);
  }
}

TEST(BoundOfTest, CoversTheBias) {
  EXPECT_GE(BoundOf(Spec(1, 1, true, DataType::kFloat32), {Constant(3, 0.5, 3)}), 9);
  EXPECT_LT(BoundOf(Spec(1, 1, false, DataType::kFloat32), {Constant(3, 0.5, 3)}), 2.3);
}

TEST(BoundOfTest, CoversSubnormals) {
  // Each product is 0.78·2^-149, which float32 rounds up to 2^-149.
  const FactorSpec spec = Spec(1, 1, false, DataType::kFloat32);
  const std::vector<Tower> towers = {Constant(300, 0x1.4p-38, 0x1p-37)};
  Average average(spec);
  average.Step({.decay = 0, .weight = 1}, towers, DataType::kFloat64);
  EXPECT_EQ(average.Read()[0], 0x1p-149);
  EXPECT_GE(BoundOf(spec, towers), 0x1p-149);
}

TEST(BoundOfTest, IsInfiniteWhereTheResultMayOverflow) {
  const FactorSpec narrow = Spec(1, 1, false, DataType::kFloat32);
  EXPECT_TRUE(std::isinf(BoundOf(narrow, {Constant(1, 0x1p32, 0x1p32)})));
  EXPECT_FALSE(std::isinf(BoundOf(narrow, {Constant(1, 0x1p31, 0x1p32)})));
  const FactorSpec wide = Spec(1, 1, false, DataType::kFloat64);
  EXPECT_FALSE(std::isinf(BoundOf(wide, {Constant(1, 0x1p32, 0x1p32)})));
  EXPECT_TRUE(std::isinf(BoundOf(wide, {Constant(1, 0x1p256, 0x1p256)})));
  EXPECT_TRUE(std::isinf(BoundOf(wide, {Constant(1, 0x1p500, 0x1p500)})));
}

TEST(BoundOfTest, IsInfiniteWhereARunMayOverflowBeforeItIsScaled) {
  const FactorSpec spec = Spec(1, 1, false, DataType::kFloat32);
  EXPECT_FALSE(std::isinf(BoundOf(spec, {Constant(1, 0x1p30, 0x1p30)})));
  EXPECT_TRUE(std::isinf(BoundOf(spec, {Constant(256, 0x1p30, 0x1p30)})));
  EXPECT_TRUE(std::isinf(BoundOf(spec, {Constant(1024, 0x1p29, 0x1p30)})));
  EXPECT_FALSE(std::isinf(BoundOf(spec, {Constant(2000, 0x1p28, 0x1p30)})));  // runs are 2^126
}

}  // namespace
}  // namespace fisherd::core
