// A GPU beside the processor: the same steps and reads, within what is promised. Skipped where
// there is none. The rest of the core's tests run over it with FISHERD_TEST_BACKEND=cuda.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/backend_cpu.h"
#include "core/devices.h"
#include "core/factor_registry.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

Devices& Found() {
  static Devices& devices = *new Devices(FindDevices({.memory = kGiB}));
  return devices;
}

class BackendCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Found().found.empty()) GTEST_SKIP() << Found().why_none;
  }
  static DeviceBackend& cuda() { return *Found().found[0]; }

  static std::unique_ptr<const Kind> KindOf(int64_t inputs, int64_t outputs, DataType dtype,
                                            int sources = 1, bool bias = true,
                                            TowerWeighting weighting = TowerWeighting::kTowerMean) {
    FactorSpec spec;
    spec.kind = FullyConnectedDiagonalSpec{inputs, outputs, bias};
    spec.sources = sources;
    spec.dtype = dtype;
    spec.tower_weighting = weighting;
    return *MakeKind(spec);
  }

  struct Result {
    std::vector<double> values;
    double largest = 0;
  };
  // A step over a state of 0, 0.1, 0.2, …, with batches in the backend's memory.
  static Result Step(Backend& backend, const Kind& kind,
                     const std::vector<reference::Tower>& towers, bool in_place,
                     const StepParameters& step = {.decay = 0.9, .weight = 0.7}) {
    std::vector<std::unique_ptr<Batch>> batches;
    std::vector<const Batch*> views;
    for (const reference::Tower& tower : towers) {
      batches.push_back(kind.NewBatch(HeaderOf(tower, DataType::kFloat32), backend.batch_memory()));
      EXPECT_EQ(Fill(*batches.back(), tower, DataType::kFloat32), absl::OkStatus());
      views.push_back(batches.back().get());
    }
    const MatrixShape shape = kind.state_shape();
    std::vector<double> before(static_cast<size_t>(shape.size()));
    for (size_t k = 0; k < before.size(); ++k) before[k] = static_cast<double>(k % 13) * 0.125;
    const auto state = MovedTo(backend, MatrixOf(shape, before));
    const auto beside = backend.NewMatrix(shape);
    EXPECT_EQ(beside->Fill(std::nan("")), absl::OkStatus());
    Matrix& to = in_place ? *state : *beside;
    Result result;
    result.largest = kind.Advance(step, views, true, *state, to, backend);
    result.values = ValuesOf(to);
    return result;
  }
};

struct Case {
  std::vector<int64_t> rows;  // of each tower
  int64_t inputs;
  int64_t outputs;
  int sources = 1;
  bool weights = false;
};

TEST_F(BackendCudaTest, StepsAreThoseOfTheProcessorIn64Bits) {
  BackendCpu cpu(nullptr);
  std::mt19937 random(7);
  const std::vector<Case> cases = {{{1}, 1, 1},
                                   {{3}, 4, 5, 2},
                                   {{16}, 33, 17},
                                   {{17}, 33, 17, 1, true},
                                   {{64}, 128, 128},
                                   {{100, 100}, 70, 50},
                                   {{5, 9, 5}, 17, 49},
                                   {{40, 40, 40}, 130, 97, 3},
                                   {{300}, 257, 300},
                                   {{700}, 20, 30},
                                   {{1, 1, 1, 1}, 100, 200},
                                   {{256, 31}, 65, 96, 1, true}};
  for (const Case& c : cases) {
    std::vector<reference::Tower> towers;
    for (const int64_t rows : c.rows) {
      towers.push_back(RandomTower(random, rows, c.inputs, c.outputs, c.sources));
      if (c.weights) {
        for (int64_t n = 0; n < rows; ++n) towers.back().row_weights.push_back(0.5 + n % 3);
      }
    }
    for (const DataType dtype : {DataType::kFloat32, DataType::kFloat64}) {
      for (const auto weighting : {TowerWeighting::kTowerMean, TowerWeighting::kExampleWeighted}) {
        const auto kind =
            KindOf(c.inputs, c.outputs, dtype, c.sources, c.rows[0] % 2 == 1, weighting);
        SCOPED_TRACE(testing::Message() << c.rows[0] << " x " << c.inputs << " x " << c.outputs
                                        << " " << NameOf(dtype) << ", towers: " << c.rows.size());
        const auto exact = KindOf(c.inputs, c.outputs, DataType::kFloat64, c.sources,
                                  c.rows[0] % 2 == 1, weighting);
        const Result want = Step(cpu, *exact, towers, true);
        const Result got = Step(cuda(), *kind, towers, true);
        ExpectNear(got.values, want.values, dtype == DataType::kFloat32 ? 1e-6 : 1e-13);
        EXPECT_EQ(got.largest, *std::max_element(got.values.begin(), got.values.end()));
        EXPECT_EQ(Step(cuda(), *kind, towers, false).values, got.values);  // bit for bit
      }
    }
  }
}

TEST_F(BackendCudaTest, ContributionsAreAddedAfterRows) {
  BackendCpu cpu(nullptr);
  std::mt19937 random(8);
  for (const DataType dtype : {DataType::kFloat32, DataType::kFloat64}) {
    const auto kind = KindOf(37, 53, dtype);
    const MatrixShape shape = kind->state_shape();
    for (const int reduced : {1, 2, 20}) {  // more than one launch adds
      for (const bool rows : {false, true}) {
        const auto step = [&](Backend& backend) {
          std::mt19937 same(9);
          std::vector<std::unique_ptr<Batch>> batches;
          std::vector<const Batch*> views;
          if (rows) batches.push_back(BatchOf(*kind, RandomTower(same, 12, 37, 53)));
          for (int t = 0; t < reduced; ++t) {
            BatchHeader header{.rows = 4, .form = BatchForm::kContribution};
            header.tensors = {
                {TensorRole::kContribution, 0, DataType::kFloat32, {shape.rows, shape.cols}}};
            std::vector<double> values(static_cast<size_t>(shape.size()));
            for (double& x : values) x = std::uniform_real_distribution<>(0, 3)(same);
            batches.push_back(kind->NewBatch(header, backend.batch_memory()));
            EXPECT_TRUE(batches.back()->Add(0, 0, ToBytes(values, DataType::kFloat32)).ok());
            EXPECT_TRUE(batches.back()->Finish().ok());
          }
          for (const auto& batch : batches) views.push_back(batch.get());
          const auto state = backend.NewMatrix(shape);
          EXPECT_EQ(state->Fill(1), absl::OkStatus());
          const double largest =
              kind->Advance({.decay = 0.5, .weight = 2}, views, true, *state, *state, backend);
          const std::vector<double> values = ValuesOf(*state);
          EXPECT_EQ(largest, *std::max_element(values.begin(), values.end()));
          return values;
        };
        ExpectNear(step(cuda()), step(cpu), dtype == DataType::kFloat32 ? 1e-6 : 1e-13);
      }
    }
  }
}

TEST_F(BackendCudaTest, SquaresThatCannotBeSplitAreMultipliedAsTheyAre) {
  BackendCpu cpu(nullptr);
  const auto kind = KindOf(3, 5, DataType::kFloat32);
  reference::Tower tower{.inputs = DenseOf(40, 3, std::vector<double>(120, 1e-15)),
                         .outputs_grads = {DenseOf(40, 5, std::vector<double>(200, 1))}};
  // Its square is 3.4027e38: below the largest float, above what hi and lo can be.
  tower.outputs_grads[0].values[7] = std::sqrt(3.4027e38);
  tower.inputs.values[0] = 0;
  const auto bias_free = KindOf(3, 5, DataType::kFloat32, 1, false);
  const Result want = Step(cpu, *bias_free, {tower}, true);
  const Result got = Step(cuda(), *bias_free, {tower}, true);
  ExpectNear(got.values, want.values, 1e-6);
}

TEST_F(BackendCudaTest, TellsWhatIsNotFinite) {
  const auto kind = KindOf(3, 5, DataType::kFloat32);
  for (const int64_t rows : {2, 40}) {
    reference::Tower tower{
        .inputs = DenseOf(rows, 3, std::vector<double>(static_cast<size_t>(3 * rows), 1e10)),
        .outputs_grads = {
            DenseOf(rows, 5, std::vector<double>(static_cast<size_t>(5 * rows), 1e10))}};
    EXPECT_EQ(Step(cuda(), *kind, {tower}, false).largest, std::numeric_limits<double>::infinity());
  }
}

TEST_F(BackendCudaTest, BytesComeBackAsTheyWent) {
  const MatrixShape shape{.rows = 1031, .cols = 2503, .dtype = DataType::kFloat32};  // 9.8 MiB
  const auto host = Matrix::New(shape);
  std::mt19937 random(1);
  for (float& x : host->elements<float>()) x = static_cast<float>(random());
  const auto device = MovedTo(cuda(), MatrixOf(shape, {}));
  ASSERT_NE(device->device(), nullptr);
  ASSERT_EQ(device->CopyFrom(*host), absl::OkStatus());
  const auto other = cuda().NewMatrix(shape);
  ASSERT_EQ(other->CopyFrom(*device), absl::OkStatus());
  const auto back = Matrix::New(shape);
  ASSERT_EQ(back->CopyFrom(*other), absl::OkStatus());
  EXPECT_TRUE(std::ranges::equal(back->bytes(), host->bytes()));
  std::vector<std::byte> some(1000);
  ASSERT_EQ(other->device()->Download(4'200'004, some), absl::OkStatus());
  EXPECT_TRUE(std::ranges::equal(some, host->bytes().subspan(4'200'004, 1000)));
  ASSERT_EQ(other->device()->Upload(8, some), absl::OkStatus());
  ASSERT_EQ(back->CopyFrom(*other), absl::OkStatus());
  EXPECT_TRUE(std::ranges::equal(back->bytes().subspan(8, 1000), some));
  ASSERT_EQ(other->Fill(2.5), absl::OkStatus());
  EXPECT_THAT(ValuesOf(*other), testing::Each(2.5));
}

// Reads of more than a chunk, in every type, layout and power, beside those of the same matrix in
// host memory.
TEST_F(BackendCudaTest, ReadsAreThoseOfTheProcessor) {
  std::mt19937 random(2);
  for (const DataType state : {DataType::kFloat32, DataType::kFloat64}) {
    const MatrixShape shape{.rows = 1300, .cols = 901, .dtype = state};
    std::vector<double> values(static_cast<size_t>(shape.size()));
    for (double& x : values) x = std::exp(std::uniform_real_distribution<>(-9, 9)(random));
    const std::shared_ptr<const Matrix> host = MatrixOf(shape, values);
    const std::shared_ptr<const Matrix> device = MovedTo(cuda(), MatrixOf(shape, values));
    for (const double exponent : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75, 0.0}) {
      const LinearOperatorDiag::Power power{.exponent = exponent, .damping = 1e-3};
      const LinearOperatorDiag here({.matrix = host, .divisor = 0.75}, true, power);
      const LinearOperatorDiag there({.matrix = device, .divisor = 0.75}, true, power);
      EXPECT_EQ(there.CheckFinite(DataType::kFloat32), absl::OkStatus());
      for (const DataType dtype :
           {DataType::kFloat32, DataType::kFloat64, DataType::kBfloat16, DataType::kFloat16}) {
        const auto layout = exponent == 0.5 ? Layout::kOutIn : Layout::kInOut;
        const TensorView view{.layout = layout, .split_bias = exponent < 0, .dtype = dtype};
        const double tolerance = dtype == DataType::kFloat64    ? 1e-13
                                 : dtype == DataType::kFloat32  ? 1e-6
                                 : dtype == DataType::kBfloat16 ? 0x1p-7
                                                                : 0x1p-9;
        const auto tensors = here.Tensors(view);
        for (size_t t = 0; t < tensors.size(); ++t) {
          const int64_t count = *ElementCount(tensors[t].shape) - 3;
          std::vector<std::byte> want(static_cast<size_t>(count * SizeOf(dtype)));
          std::vector<std::byte> got(want.size());
          const int tensor = static_cast<int>(t);
          ASSERT_EQ(here.Elements(view, tensor, 3, want), absl::OkStatus());
          ASSERT_EQ(there.Elements(view, tensor, 3, got), absl::OkStatus());
          const auto want_values = FromBytes(want, dtype);
          if (dtype != DataType::kFloat16) {  // it has not the range
            ExpectNear(FromBytes(got, dtype), want_values, tolerance);
          }
          std::vector<std::byte> x(want.size());
          const auto xs = std::vector<double>(static_cast<size_t>(count), 0.5);
          x = ToBytes(xs, dtype);
          if (dtype == DataType::kFloat16) continue;
          ASSERT_EQ(here.Multiply(view, tensor, 3, x, want), absl::OkStatus());
          ASSERT_EQ(there.Multiply(view, tensor, 3, x, got), absl::OkStatus());
          ExpectNear(FromBytes(got, dtype), FromBytes(want, dtype), tolerance);
        }
      }
    }
    const auto summary = device->device()->Summarize(0.75);
    ASSERT_TRUE(summary.ok());
    double sum = 0;
    for (const double x : ValuesOf(*host)) sum += x / 0.75;
    const auto stored = ValuesOf(*host);
    const auto [least, most] = std::minmax_element(stored.begin(), stored.end());
    EXPECT_NEAR(summary->least, *least / 0.75, *least * 1e-12);
    EXPECT_NEAR(summary->most, *most / 0.75, *most * 1e-12);
    EXPECT_NEAR(summary->sum, sum, sum * 1e-12);
  }
}

TEST_F(BackendCudaTest, NamesTheFirstProductThatIsNotFinite) {
  const MatrixShape shape{.rows = 3000, .cols = 1000, .dtype = DataType::kFloat32};
  const std::vector<double> values(static_cast<size_t>(shape.size()), 2);
  const LinearOperatorDiag op({.matrix = MovedTo(cuda(), MatrixOf(shape, values))}, false,
                              LinearOperatorDiag::Power{.exponent = 2, .damping = 0});
  std::vector<float> x(values.size(), 1);
  x[2'500'000] = std::numeric_limits<float>::infinity();
  x[2'700'000] = 3e38f;
  std::vector<float> out(x.size());
  const auto multiply = [&] {
    return op.Multiply({}, 0, 0, std::as_bytes(std::span(x)),
                       std::as_writable_bytes(std::span(out)));
  };
  EXPECT_THAT(multiply(), IsError(absl::StatusCode::kInvalidArgument, reason::kNonFiniteInput,
                                  "element 2500000"));
  x[2'500'000] = 1;
  EXPECT_THAT(multiply(), IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                                  "element 2700000"));
  x[2'700'000] = 1;
  EXPECT_EQ(multiply(), absl::OkStatus());
  EXPECT_EQ(out.back(), 4);
}

TEST_F(BackendCudaTest, WithoutMemoryThereIsNoMatrixAndNoHarm) {
  EXPECT_EQ(cuda().NewMatrix({.rows = 1 << 20, .cols = 1 << 20}), nullptr);
  EXPECT_EQ(cuda().Check(), absl::OkStatus());
  EXPECT_NE(cuda().NewMatrix({.rows = 10, .cols = 10}), nullptr);
}

TEST_F(BackendCudaTest, StepsAtOnceGiveTheBitsOfStepsAlone) {
  std::mt19937 random(3);
  const auto kind = KindOf(200, 300, DataType::kFloat32);
  const std::vector<reference::Tower> towers = {RandomTower(random, 64, 200, 300),
                                                RandomTower(random, 64, 200, 300)};
  const std::vector<double> alone = Step(cuda(), *kind, towers, true).values;
  std::vector<std::future<bool>> same;
  for (int k = 0; k < 8; ++k) {
    same.push_back(std::async(std::launch::async, [&] {
      bool equal = true;
      for (int n = 0; n < 10; ++n) equal &= Step(cuda(), *kind, towers, n % 2 == 0).values == alone;
      return equal;
    }));
  }
  for (auto& equal : same) EXPECT_TRUE(equal.get());
}

TEST_F(BackendCudaTest, BatchesLieInMemoryThatIsUsedAgain) {
  HostMemory& memory = *cuda().batch_memory();
  void* const first = memory.Allocate(1'000'000);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % kAlignment, 0);
  std::memset(first, 1, 1'000'000);
  const int64_t pinned = cuda().stats().pinned_bytes;
  EXPECT_GE(pinned, 1'000'000);
  memory.Free(first, 1'000'000);
  EXPECT_EQ(memory.Allocate(1'000'001), first);  // of the same class
  EXPECT_EQ(cuda().stats().pinned_bytes, pinned);
  memory.Free(first, 1'000'001);
}

TEST_F(BackendCudaTest, CountsWhatItDoes) {
  std::mt19937 random(4);
  const auto before = cuda().stats();
  Step(cuda(), *KindOf(64, 64, DataType::kFloat32), {RandomTower(random, 32, 64, 64)}, true);
  const auto after = cuda().stats();
  EXPECT_GT(after.kernel_seconds, before.kernel_seconds);
  EXPECT_GT(after.copy_seconds, before.copy_seconds);
  EXPECT_GE(after.bytes_to_device - before.bytes_to_device, 2 * 32 * 64 * 4);
  EXPECT_GE(after.bytes_from_device - before.bytes_from_device, 65 * 64 * 4);
  EXPECT_GT(after.free_bytes, 0);
}

class CudaFactorTest : public BackendCudaTest {
 protected:
  void SetUp() override {
    BackendCudaTest::SetUp();
    if (IsSkipped()) return;
    registry_.emplace(RegistryOptions{.backend = &host_,
                                      .pool = &*pool_,
                                      .state_budget = 1 << 20,
                                      .devices = {{&cuda(), cuda().state_budget()}},
                                      .batch_budget = 1 << 20,
                                      .timers = &*timers_});
  }
  ~CudaFactorTest() override {
    timers_.reset();
    pool_.reset();
  }
  FactorSpec Spec(BackendChoice backend, int64_t size = 20) {
    FactorSpec spec;
    spec.kind = FullyConnectedDiagonalSpec{size, size, true};
    spec.backend = backend;
    return spec;
  }

  BackendCpu host_{nullptr};
  std::optional<ComputePool> pool_{std::in_place, 2};
  std::optional<TimerQueue> timers_{std::in_place};
  std::optional<FactorRegistry> registry_;
};

TEST_F(CudaFactorTest, FactorsLiveWhereTheyAreAskedTo) {
  const auto on_card = registry_->Create("a", Spec(BackendChoice::kAny));
  ASSERT_TRUE(on_card.ok()) << on_card.status();
  EXPECT_EQ(on_card->factor->Describe().backend, cuda().name());
  const auto on_host = registry_->Create("b", Spec(BackendChoice::kCpu));
  ASSERT_TRUE(on_host.ok());
  EXPECT_EQ(on_host->factor->Describe().backend, host_.name());
  EXPECT_EQ(registry_->placement().devices()[0]->budget.used(), 2 * 21 * 20 * 4);
  // More than the card's part, with the figures.
  const auto too_large = registry_->Create("c", Spec(BackendChoice::kCuda, 12'000));
  EXPECT_THAT(too_large.status(), IsError(absl::StatusCode::kResourceExhausted,
                                          reason::kStateBudget, "the state budget is"));
  EXPECT_EQ(FieldOf(too_large.status(), "estimated_bytes"),
            std::to_string(int64_t{2} * 12'001 * 12'000 * 4));
}

TEST_F(CudaFactorTest, WhatWasSavedComesBackWithItsBits) {
  const auto created = registry_->Create("a", Spec(BackendChoice::kCuda));
  ASSERT_TRUE(created.ok());
  FactorImage image = *created->factor->TryImage();
  const MatrixShape shape = image.state->shape();
  std::vector<double> values(static_cast<size_t>(shape.size()));
  for (size_t k = 0; k < values.size(); ++k) values[k] = static_cast<float>(k) * 0.1f;
  const auto saved = MatrixOf(shape, values);
  const auto put = registry_->Put("b", image.spec, [&](uint64_t incarnation) {
    FactorRegistry::Content content{image, MatrixOf(shape, values)};
    content.image.version.incarnation = incarnation;
    return content;
  });
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(ValuesOf(*(*put)->TryImage()->state), ValuesOf(*saved));
  // After a restart, with a registered result, which moves to the card.
  ASSERT_TRUE(registry_->dampings().Set("d", 1.0).ok());
  auto cached = std::make_shared<CachedResult>();
  cached->matrix = MatrixOf(shape, values);
  cached->version = image.version;
  image.name = "c";
  image.results = {{.op = {.kind = OperatorKind::kCholesky, .damping = "d"}, .cached = cached}};
  ASSERT_EQ(registry_->Restore(image, [&](const Kind&, Backend&,
                                          Matrix& state) { return state.CopyFrom(*saved); }),
            absl::OkStatus());
  const auto factor = *registry_->Find("c");
  const FactorImage again = *factor->TryImage();
  EXPECT_EQ(ValuesOf(*again.state), ValuesOf(*saved));
  ASSERT_NE(again.results[0].cached, nullptr);
  EXPECT_NE(again.results[0].cached->matrix->device(), nullptr);
  EXPECT_EQ(ValuesOf(*again.results[0].cached->matrix), ValuesOf(*saved));
}

}  // namespace
}  // namespace fisherd::core
