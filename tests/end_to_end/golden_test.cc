// SPEC §7, through Update and Read.

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using ::testing::ElementsAreArray;
using ::testing::FloatNear;
using ::testing::Pointwise;

const Values kA = {1, 2, 3, 4};
const Values kTwoA = {2, 4, 6, 8};
const Values kG = {1, -1, 2, 0.5};
const Values kTwoG = {2, -2, 4, 1};

class GoldenTest : public ServerTest {
 protected:
  // Sends the batches on one stream, which opens the towers, and waits until all steps have ended.
  void Commit(const v1::FactorInfo& factor, const std::vector<Batch>& batches) {
    Trainer trainer(stub(), 1);
    for (int tower = 0; tower < factor.spec().towers(); ++tower) {
      trainer.Claim(factor.name(), tower);
    }
    for (const Batch& batch : batches) trainer.Send(batch, 1);
    trainer.AwaitNext(factor.name(), batches.back().header.step() + 1);
  }

  Values Read(const std::string& factor, const v1::Operator& op = Covariance()) {
    ReadAnswer answer = ReadAll(stub(), ReadOf(factor, op));
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    return answer.tensors.empty() ? Values() : answer.tensors[0];
  }

  static auto Near(const Values& values) { return Pointwise(FloatNear(1e-6), values); }
};

TEST_P(GoldenTest, TheCovarianceOfOneStep) {
  CreateGolden("f");
  EXPECT_THAT(Read("f"), ElementsAreArray(kGoldenCovariance));
}

TEST_P(GoldenTest, OnesWithoutDebias) {
  v1::FactorSpec spec = LayerSpec(2, 2);
  spec.set_zero_debias(false);
  spec.set_initial_covariance(v1::INITIAL_COVARIANCE_ONES);
  const v1::FactorInfo factor = Create("f", spec);
  EXPECT_THAT(Read("f"), ElementsAreArray(Values(6, 1)));
  Commit(factor, {GoldenBatch(factor)});
  EXPECT_THAT(Read("f"), ElementsAreArray({9.75, 1.3125, 17.5, 2.5, 1.75, 0.8125}));
}

TEST_P(GoldenTest, DebiasWithAConstantDecay) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  std::vector<Batch> batches = {RawBatch(factor, 1, 0, 2, kA, kG),
                                RawBatch(factor, 2, 0, 2, kTwoA, kG)};
  for (Batch& batch : batches) batch.header.set_decay(0.9);
  Commit(factor, batches);
  const ReadAnswer answer = ReadAll(stub(), ReadOf("f"));
  EXPECT_NEAR(answer.tensors[0][0], 47.71052632, 1e-5);
  EXPECT_NEAR(answer.tensors[0][1], 4.19078947, 1e-6);
  EXPECT_NEAR(answer.tensors[0][2], 87.68421053, 1e-5);
  EXPECT_NEAR(answer.tensors[0][3], 10.31578947, 1e-6);
  EXPECT_FLOAT_EQ(answer.tensors[0][4], 2.5);
  EXPECT_FLOAT_EQ(answer.tensors[0][5], 0.625);
  EXPECT_EQ(answer.header.operator_().steps_committed(), 2);
}

TEST_P(GoldenTest, DebiasWithADecayThatVaries) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  std::vector<Batch> batches = {RawBatch(factor, 1, 0, 2, kA, kG),
                                RawBatch(factor, 2, 0, 2, kTwoA, kG)};
  batches[1].header.set_decay(0.9);
  Commit(factor, batches);
  EXPECT_DOUBLE_EQ(Describe("f").total_weight(), 0.55);
  const Values value = Read("f");
  const Values want = {28.59090909, 2.51136364, 52.54545455, 6.18181818, 2.5, 0.625};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(value[i], want[i], 1e-5) << i;
}

TEST_P(GoldenTest, PowersOfTheCovariance) {
  CreateGolden("f");
  EXPECT_THAT(Read("f", Matpower(-1, 0.5)),
              Near({.05263158, .47058824, .02898551, .22222222, .33333333, .88888889}));
  const Values cholesky = Read("f", Cholesky(0.5));
  EXPECT_THAT(Values(cholesky.begin(), cholesky.begin() + 2), Near({4.35889894, 1.45773797}));
  const Values inverse = Read("f", CholeskyInverse(0.5));
  EXPECT_NEAR(inverse[0], 1 / 4.35889894, 1e-6);
  const Values power = Read("f", Matpower(-0.75, 0.5));
  EXPECT_THAT(Values(power.begin(), power.begin() + 2), Near({.10988409, .56817327}));
  EXPECT_THAT(Read("f", Matpower(1, 0.5)), ElementsAreArray({19., 2.125, 34.5, 4.5, 3., 1.125}));
  EXPECT_THAT(Read("f", Matpower(0, 0.5)), ElementsAreArray(Values(6, 1)));
}

// Sources (G, 2G), two towers of one row each: 5·C.
TEST_P(GoldenTest, SourcesAddAndTowersAverage) {
  v1::FactorSpec spec = LayerSpec(2, 2, true, 2);
  spec.set_sources(2);
  const v1::FactorInfo factor = Create("f", spec);
  std::vector<Batch> batches;
  for (int row = 0; row < 2; ++row) {
    const auto part = [row](const Values& v) { return Values{v[2 * row], v[2 * row + 1]}; };
    batches.push_back(NewBatch(factor, 1, row, 1));
    batches.back().Add(v1::TENSOR_ROLE_INPUTS, 2, part(kA));
    batches.back().Add(v1::TENSOR_ROLE_OUTPUTS_GRADS, 2, part(kG), 0);
    batches.back().Add(v1::TENSOR_ROLE_OUTPUTS_GRADS, 2, part(kTwoG), 1);
  }
  Commit(factor, batches);
  EXPECT_THAT(Read("f"), ElementsAreArray({92.5, 8.125, 170., 20., 12.5, 3.125}));
}

TEST_P(GoldenTest, ExampleWeightedTowers) {
  v1::FactorSpec spec = LayerSpec(2, 2, true, 2);
  spec.set_tower_weighting(v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED);
  const v1::FactorInfo factor = Create("f", spec);
  Commit(factor, {RawBatch(factor, 1, 0, 1, {1, 2}, {1, -1}),
                  RawBatch(factor, 1, 1, 2, {3, 4, 3, 4}, {2, 0.5, 2, 0.5})});
  const Values value = Read("f");
  const Values want = {24.33333333, 1.83333333, 44, 4, 3, 0.5};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(value[i], want[i], 1e-5) << i;
}

TEST_P(GoldenTest, RowWeights) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  Batch batch = GoldenBatch(factor);
  batch.Add(v1::TENSOR_ROLE_ROW_WEIGHTS, 0, {1, 3});
  Commit(factor, {batch});
  EXPECT_THAT(Read("f"), ElementsAreArray({27.25, 1.9375, 49., 4., 3.25, .4375}));
}

TEST_P(GoldenTest, GradientScaleUndoesALossThatIsAMean) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  Batch batch = RawBatch(factor, 1, 0, 2, kA, {0.5, -0.5, 1, 0.25});
  batch.header.set_gradient_scale(2);
  Commit(factor, {batch});
  EXPECT_THAT(Read("f"), ElementsAreArray(kGoldenCovariance));
}

// Everything in these types, state and wire, is exact for the golden batch.
TEST_P(GoldenTest, EveryTypeOnTheWire) {
  for (const v1::DataType state : {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_FLOAT64}) {
    for (const v1::DataType wire : {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_FLOAT64,
                                    v1::DATA_TYPE_BFLOAT16, v1::DATA_TYPE_FLOAT16}) {
      const std::string name = v1::DataType_Name(state) + v1::DataType_Name(wire);
      v1::FactorSpec spec = LayerSpec(2, 2);
      spec.set_dtype(state);
      const v1::FactorInfo factor = Create(name, spec);
      Batch batch = NewBatch(factor, 1, 0, 2);
      batch.Add(v1::TENSOR_ROLE_INPUTS, 2, kA, 0, wire);
      batch.Add(v1::TENSOR_ROLE_OUTPUTS_GRADS, 2, kG, 0, wire);
      Commit(factor, {batch});
      v1::ReadRequest request = ReadOf(name);
      EXPECT_EQ(ReadAll(stub(), request).header.tensors(0).dtype(), state);
      request.set_dtype(wire);
      const ReadAnswer answer = ReadAll(stub(), request);
      EXPECT_EQ(answer.header.tensors(0).dtype(), wire);
      EXPECT_THAT(answer.tensors[0], ElementsAreArray(kGoldenCovariance)) << name;
    }
  }
}

FISHERD_ON_EVERY_TRANSPORT(GoldenTest);

}  // namespace
}  // namespace fisherd::server
