#include "core/linear_operator.h"

#include <limits>

#include "tests/core/test_backend.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

using Power = LinearOperatorDiag::Power;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr DataType kWireTypes[] = {DataType::kFloat32, DataType::kFloat64, DataType::kBfloat16,
                                   DataType::kFloat16};

LinearOperatorDiag Operator(const MatrixShape& shape, const std::vector<double>& values,
                            std::optional<Power> power, double divisor = 1, bool has_bias = false) {
  return LinearOperatorDiag(
      {.matrix = MovedTo(TestBackend(), MatrixOf(shape, values)), .divisor = divisor}, has_bias,
      power);
}

std::vector<double> Elements(const LinearOperator& op, const TensorView& view, int tensor = 0) {
  const auto shape = op.Tensors(view)[tensor].shape;
  std::vector<std::byte> bytes(*ElementCount(shape) * SizeOf(view.dtype));
  EXPECT_EQ(op.Elements(view, tensor, 0, bytes), absl::OkStatus());
  return FromBytes(bytes, view.dtype);
}

std::vector<double> Rounded(const std::vector<double>& values, DataType type) {
  return FromBytes(ToBytes(values, type), type);
}

// --- Specifications ---

TEST(OperatorSpecTest, Power) {
  EXPECT_EQ(OperatorSpec{}.power(), 1);
  EXPECT_EQ((OperatorSpec{.kind = OperatorKind::kMatpower, .exponent = -3}).power(), -3);
  EXPECT_EQ(OperatorSpec{.kind = OperatorKind::kCholesky}.power(), 0.5);
  EXPECT_EQ(OperatorSpec{.kind = OperatorKind::kCholeskyInverse}.power(), -0.5);
}

TEST(OperatorSpecTest, Describe) {
  EXPECT_EQ(Describe(OperatorSpec{}), "covariance");
  EXPECT_EQ(Describe(OperatorSpec{
                .kind = OperatorKind::kMatpower, .exponent = -0.5, .damping = "global"}),
            "matpower(-0.5, damping \"global\")");
  EXPECT_EQ(Describe(OperatorSpec{.kind = OperatorKind::kCholesky, .damping = 0.25}),
            "cholesky(damping 0.25)");
  EXPECT_EQ(Describe(OperatorSpec{.kind = OperatorKind::kCholeskyInverse, .damping = "a\nb"}),
            "cholesky_inverse(damping \"a\\nb\")");
}

TEST(OperatorSpecTest, Check) {
  using enum OperatorKind;
  EXPECT_EQ(CheckOperator({}), absl::OkStatus());
  EXPECT_EQ(CheckOperator({.kind = kMatpower, .exponent = -1e300, .damping = 0.0}),
            absl::OkStatus());
  EXPECT_EQ(CheckOperator({.kind = kCholesky, .damping = "global"}), absl::OkStatus());
  for (const double bad : {kInfinity, -kInfinity, std::nan("")}) {
    const absl::Status exponent = CheckOperator({.kind = kMatpower, .exponent = bad});
    EXPECT_THAT(exponent,
                IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, "exponent is"));
    EXPECT_EQ(FieldOf(exponent), "exponent");
    const absl::Status damping = CheckOperator({.kind = kCholesky, .damping = bad});
    EXPECT_THAT(damping,
                IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, "damping is"));
    EXPECT_EQ(FieldOf(damping), "damping");
  }
  EXPECT_FALSE(CheckOperator({.kind = kMatpower, .damping = -0.1}).ok());
  EXPECT_THAT(CheckOperator({.kind = kCholeskyInverse, .damping = ""}),
              IsError(absl::StatusCode::kInvalidArgument, reason::kBadName, "empty"));
}

// --- Views ---

constexpr MatrixShape k3x2{.rows = 3, .cols = 2, .dtype = DataType::kFloat32};

TEST(LinearOperatorDiagTest, Views) {
  const auto op = Operator(k3x2, {1, 2, 3, 4, 5, 6}, std::nullopt, 1, true);
  EXPECT_EQ(op.class_name(), "LinearOperatorDiag");
  EXPECT_EQ(op.dimension(), 6);

  const TensorView in_out{};
  EXPECT_EQ(op.Tensors(in_out)[0].shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(op.Tensors(in_out)[0].role, TensorRole::kResult);
  EXPECT_THAT(Elements(op, in_out), ElementsAre(1, 2, 3, 4, 5, 6));

  const TensorView out_in{.layout = Layout::kOutIn};
  EXPECT_EQ(op.Tensors(out_in)[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_THAT(Elements(op, out_in), ElementsAre(1, 3, 5, 2, 4, 6));

  const TensorView split{.split_bias = true};
  ASSERT_EQ(op.Tensors(split).size(), 2);
  EXPECT_EQ(op.Tensors(split)[0].role, TensorRole::kWeight);
  EXPECT_EQ(op.Tensors(split)[0].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(op.Tensors(split)[1].role, TensorRole::kBias);
  EXPECT_EQ(op.Tensors(split)[1].shape, (std::vector<int64_t>{2}));
  EXPECT_THAT(Elements(op, split, 0), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Elements(op, split, 1), ElementsAre(5, 6));

  const TensorView out_in_split{.layout = Layout::kOutIn, .split_bias = true};
  EXPECT_THAT(Elements(op, out_in_split, 0), ElementsAre(1, 3, 2, 4));
  EXPECT_THAT(Elements(op, out_in_split, 1), ElementsAre(5, 6));
}

TEST(LinearOperatorDiagTest, WithoutBiasTheWeightIsAll) {
  const auto op = Operator(k3x2, {1, 2, 3, 4, 5, 6}, std::nullopt);
  const TensorView split{.layout = Layout::kOutIn, .split_bias = true};
  ASSERT_EQ(op.Tensors(split).size(), 1);
  EXPECT_EQ(op.Tensors(split)[0].role, TensorRole::kWeight);
  EXPECT_THAT(Elements(op, split), ElementsAre(1, 3, 5, 2, 4, 6));
}

// Every tensor of every view, in runs of awkward sizes, is the whole.
void ExpectRunsAreTheWhole(DataType state) {
  std::mt19937 random(3);
  const MatrixShape shape{.rows = 33, .cols = 41, .dtype = state};
  std::vector<double> values = RandomDense(random, 33, 41).values;
  for (double& v : values) v *= v;
  const auto op = Operator(shape, values, Power{.exponent = -0.5, .damping = 0.25}, 0.75, true);
  const std::vector<double> x = RandomDense(random, 33, 41).values;
  for (const DataType dtype : kWireTypes) {
    for (const Layout layout : {Layout::kInOut, Layout::kOutIn}) {
      for (const bool split : {false, true}) {
        const TensorView view{.layout = layout, .split_bias = split, .dtype = dtype};
        for (size_t tensor = 0; tensor < op.Tensors(view).size(); ++tensor) {
          const std::vector<double> whole = Elements(op, view, tensor);
          for (const size_t run : {1, 7, 513, 1000}) {
            for (size_t first = 0; first < whole.size(); first += run) {
              const size_t count = std::min(run, whole.size() - first);
              std::vector<std::byte> out(count * SizeOf(dtype) + 1);  // not aligned
              const auto span = std::span(out).subspan(1);
              EXPECT_EQ(op.Elements(view, tensor, first, span), absl::OkStatus());
              const std::vector<double> got = FromBytes(span, dtype);
              ASSERT_TRUE(std::equal(got.begin(), got.end(), whole.begin() + first));

              const std::vector<double> part(x.begin() + first, x.begin() + first + count);
              std::vector<std::byte> in = ToBytes(part, dtype);
              in.insert(in.begin(), std::byte{});
              ASSERT_EQ(op.Multiply(view, tensor, first, std::span(in).subspan(1), span),
                        absl::OkStatus());
              const double ulp = dtype == DataType::kBfloat16  ? 0x1p-7
                                 : dtype == DataType::kFloat16 ? 0x1p-10
                                                               : 0x1p-21;
              const std::vector<double> products = FromBytes(span, dtype);
              for (size_t k = 0; k < count; ++k) {
                ASSERT_NEAR(products[k], whole[first + k] * part[k],
                            ulp * std::abs(whole[first + k] * part[k]));
              }
            }
          }
        }
      }
    }
  }
}

TEST(LinearOperatorDiagTest, RunsAreTheWhole) {
  ExpectRunsAreTheWhole(DataType::kFloat32);
  ExpectRunsAreTheWhole(DataType::kFloat64);
}

// --- Powers ---

constexpr double kExponents[] = {0, 1, -1, 0.5, -0.5, 2, -0.75, 3, 1.0 / 3, -2};

TEST(LinearOperatorDiagTest, PowersMatchTheReferenceInEveryType) {
  std::mt19937 random(5);
  for (const DataType state : {DataType::kFloat32, DataType::kFloat64}) {
    for (const auto& [rows, cols] : {std::pair<int, int>{1, 1}, {1, 513}, {511, 1}, {17, 33}}) {
      reference::Dense v = RandomDense(random, rows, cols);
      for (double& x : v.values) x = x * x + 0.125;  // exact in float32
      const double divisor = 0.75;
      const auto matrix = MatrixOf({.rows = rows, .cols = cols, .dtype = state}, v.values);
      const std::vector<double> stored = ValuesOf(*matrix);
      for (size_t k = 0; k < stored.size(); ++k) v.values[k] = stored[k] / divisor;
      for (const double exponent : kExponents) {
        for (const double damping : {0.0, 0.5}) {
          const auto op = Operator(matrix->shape(), stored, Power{exponent, damping}, divisor);
          for (const DataType dtype : kWireTypes) {
            ASSERT_EQ(op.CheckFinite(dtype), absl::OkStatus());
            // FLOAT32 of a FLOAT32 is computed as such; all else is rounded once.
            const double tolerance = dtype == DataType::kFloat64    ? 1e-14
                                     : dtype == state               ? 0x1p-21
                                     : dtype == DataType::kFloat32  ? 0x1.01p-24
                                     : dtype == DataType::kBfloat16 ? 0x1.01p-8
                                                                    : 0x1.01p-11;
            ExpectNear(Elements(op, {.dtype = dtype}),
                       reference::Matpower(v, exponent, damping).values, tolerance);
          }
        }
      }
    }
  }
}

TEST(LinearOperatorDiagTest, ExactPowers) {
  const MatrixShape shape{.rows = 1, .cols = 4, .dtype = DataType::kFloat64};
  const std::vector<double> v = {0, 0.1, 7, 1e300};
  const TensorView view{.dtype = DataType::kFloat64};
  const auto power = [&](double e, double damping) {
    return Elements(Operator(shape, v, Power{e, damping}), view);
  };
  EXPECT_THAT(power(0, 0), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(power(1, 0), ElementsAre(0, 0.1, 7, 1e300));
  EXPECT_THAT(power(1, 0.2), ElementsAre(0.2, 0.1 + 0.2, 7.2, 1e300));
  EXPECT_THAT(power(-1, 1), ElementsAre(1, 1 / 1.1, 1 / 8.0, 1 / 1e300));
  EXPECT_THAT(power(0.5, 0), ElementsAre(0, std::sqrt(0.1), std::sqrt(7.0), 1e150));
  EXPECT_THAT(power(-0.5, 1),
              ElementsAre(1, 1 / std::sqrt(1.1), 1 / std::sqrt(8.0), 1 / std::sqrt(1e300)));
  EXPECT_THAT(power(0.3, 0)[0], 0);
  EXPECT_THAT(Elements(Operator(shape, {0, 0.1, 7, 3}, Power{2, 0}), view),
              ElementsAre(0, 0.1 * 0.1, 49, 9));
}

TEST(LinearOperatorDiagTest, DividesInDoubleAndRoundsOnce) {
  const auto op = Operator(k3x2, {1, 2, 3, 4, 5, 6}, std::nullopt, 0.7);
  for (const DataType dtype : kWireTypes) {
    EXPECT_EQ(Elements(op, {.dtype = dtype}),
              Rounded({1 / 0.7, 2 / 0.7, 3 / 0.7, 4 / 0.7, 5 / 0.7, 6 / 0.7}, dtype));
  }
  // The divisor of a first step is also its weight: an exact inverse of it.
  EXPECT_EQ(Elements(Operator(k3x2, std::vector<double>(6, 0.1), std::nullopt, 0.1f), {})[0], 1);
}

TEST(LinearOperatorDiagTest, KeepsSubnormals) {
  const MatrixShape shape{.rows = 1, .cols = 2, .dtype = DataType::kFloat32};
  const auto op = Operator(shape, {0x1p-149, 0x1p-130}, std::nullopt);
  EXPECT_THAT(Elements(op, {}), ElementsAre(0x1p-149, 0x1p-130));
  EXPECT_THAT(Elements(op, {.dtype = DataType::kBfloat16}), ElementsAre(0, 0x1p-130));
  const MatrixShape wide{.rows = 1, .cols = 1, .dtype = DataType::kFloat64};
  EXPECT_THAT(Elements(Operator(wide, {0x1p-1074}, std::nullopt), {.dtype = DataType::kFloat64}),
              ElementsAre(0x1p-1074));
}

TEST(LinearOperatorDiagTest, Materialize) {
  for (const DataType state : {DataType::kFloat32, DataType::kFloat64}) {
    const MatrixShape shape{.rows = 3, .cols = 2, .dtype = state};
    const auto op = Operator(shape, {1, 2, 3, 4, 5, 6}, Power{-1, 0.5}, 0.5, true);
    auto out = TestBackend().NewMatrix(shape);
    EXPECT_EQ(op.Materialize(*out), absl::OkStatus());
    EXPECT_EQ(ValuesOf(*out), Elements(op, {.dtype = state}));
  }
}

// --- What is not finite ---

TEST(LinearOperatorDiagTest, RefusesInversesOfZero) {
  const auto op = Operator(k3x2, {0, 2, 0, 4, 5, 6}, Power{-1, 0});
  const absl::Status status = op.CheckFinite(DataType::kFloat32);
  EXPECT_THAT(status, IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                              "2 of 6 entries; the smallest v is 0"));
  EXPECT_EQ(FieldOf(status, "entries"), "2");
  EXPECT_EQ(FieldOf(status, "smallest_value"), "0");
  EXPECT_FALSE(
      Operator(k3x2, {0, 2, 0, 4, 5, 6}, Power{-0.5, 0}).CheckFinite(DataType::kFloat32).ok());
  EXPECT_FALSE(
      Operator(k3x2, {0, 2, 0, 4, 5, 6}, Power{-0.3, 0}).CheckFinite(DataType::kFloat32).ok());
  for (const double e : {0.0, 0.5, 1.0, 2.0, 0.3}) {
    EXPECT_EQ(Operator(k3x2, {0, 2, 0, 4, 5, 6}, Power{e, 0}).CheckFinite(DataType::kFloat32),
              absl::OkStatus());
  }
  EXPECT_EQ(Operator(k3x2, {0, 2, 0, 4, 5, 6}, Power{-1, 1e-6}).CheckFinite(DataType::kFloat32),
            absl::OkStatus());
}

TEST(LinearOperatorDiagTest, RefusesWhatTheTypeCannotHold) {
  const auto op = Operator(k3x2, {1, 65504, 65519, 65520, 3, 1e6}, std::nullopt);
  const absl::Status status = op.CheckFinite(DataType::kFloat16);
  EXPECT_THAT(status, IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                              "the covariance v is not a finite FLOAT16 in 2 of 6 entries"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the smallest v is 1"));
  EXPECT_EQ(op.CheckFinite(DataType::kBfloat16), absl::OkStatus());
  EXPECT_EQ(op.CheckFinite(DataType::kFloat32), absl::OkStatus());
}

TEST(LinearOperatorDiagTest, TheLargestFiniteValuesAreServed) {
  for (const DataType dtype : kWireTypes) {
    const MatrixShape shape{.rows = 1, .cols = 1, .dtype = DataType::kFloat64};
    const auto op = Operator(shape, {MaxOf(dtype)}, std::nullopt);
    EXPECT_EQ(op.CheckFinite(dtype), absl::OkStatus());
    EXPECT_EQ(Elements(op, {.dtype = dtype})[0], MaxOf(dtype));
    EXPECT_FALSE(Operator(shape, {MaxOf(dtype)}, std::nullopt, 0.5).CheckFinite(dtype).ok());
  }
}

TEST(LinearOperatorDiagTest, RefusesPowersOfAnOverflow) {
  const MatrixShape shape{.rows = 1, .cols = 2, .dtype = DataType::kFloat64};
  const double max = std::numeric_limits<double>::max();
  for (const double e : {-1.0, -0.5, 0.5, 1.0, 2.0}) {
    EXPECT_THAT(
        Operator(shape, {1, max}, Power{e, 0}, 0.5).CheckFinite(DataType::kFloat64),
        IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult, "1 of 2 entries"));
    EXPECT_FALSE(Operator(shape, {1, max}, Power{e, max}).CheckFinite(DataType::kFloat64).ok());
  }
}

// An operator that has been told bounds of its elements.
LinearOperatorDiag Bounded(std::vector<double> values, double least, double most,
                           std::optional<Power> power, double divisor = 1,
                           DataType state = DataType::kFloat32) {
  const MatrixShape shape{.rows = 1, .cols = static_cast<int64_t>(values.size()), .dtype = state};
  return LinearOperatorDiag({.matrix = MovedTo(TestBackend(), MatrixOf(shape, values)),
                             .divisor = divisor,
                             .least = least,
                             .most = most},
                            false, power);
}

// Elements that belie their bounds show that nobody looks at them.
TEST(LinearOperatorDiagTest, WithinGoodBoundsNoElementIsRead) {
  const std::vector<double> bad = {kInfinity, 0, kInfinity};
  for (const DataType dtype : kWireTypes) {
    EXPECT_EQ(Bounded(bad, 0, 100, std::nullopt).CheckFinite(dtype), absl::OkStatus());
    EXPECT_EQ(Bounded(bad, 0, 1e6, std::nullopt, 100).CheckFinite(dtype), absl::OkStatus());
    EXPECT_EQ(Bounded(bad, 0, 100, Power{-1, 1e-4}).CheckFinite(dtype), absl::OkStatus());
    EXPECT_EQ(Bounded(bad, 1, 100, Power{-0.75, 0}).CheckFinite(dtype), absl::OkStatus());
    EXPECT_EQ(Bounded(bad, 0, 100, Power{2, 1}).CheckFinite(dtype), absl::OkStatus());
  }
  // A type's own maximum is a bound.
  EXPECT_EQ(Bounded(bad, 0, kInfinity, std::nullopt).CheckFinite(DataType::kFloat64),
            absl::OkStatus());
  EXPECT_FALSE(Bounded(bad, 0, kInfinity, std::nullopt).CheckFinite(DataType::kFloat32).ok());
}

TEST(LinearOperatorDiagTest, BoundsThatDoNotTellAreLookedInto) {
  const std::vector<double> good = {3, 1, 2};
  for (const double exponent : {-1.0, -0.5, -0.3, -2.0}) {
    EXPECT_EQ(Bounded(good, 0, 3, Power{exponent, 0}).CheckFinite(DataType::kFloat16),
              absl::OkStatus());
    EXPECT_FALSE(Bounded({3, 0, 2}, 0, 3, Power{exponent, 0}).CheckFinite(DataType::kFloat16).ok());
  }
  EXPECT_EQ(Bounded(good, 0, 1e5, std::nullopt).CheckFinite(DataType::kFloat16), absl::OkStatus());
  EXPECT_EQ(Bounded(good, 0, 1e300, Power{2, 0}).CheckFinite(DataType::kFloat32), absl::OkStatus());
  EXPECT_EQ(Bounded(good, 0, 1e308, Power{-1, 1}, 0.1, DataType::kFloat64)
                .CheckFinite(DataType::kFloat64),
            absl::OkStatus());
}

TEST(LinearOperatorDiagTest, BoundsAreOfTheMatrixBeforeTheDivisor) {
  const auto op = Bounded({1, 700, 1000}, 0, 1000, std::nullopt, 0.01);
  EXPECT_THAT(op.CheckFinite(DataType::kFloat16),
              IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                      "2 of 3 entries; the smallest v is 100"));
  EXPECT_THAT(
      Bounded({1, 2, 3}, 1, 3, Power{-1, 0}, 1e39).CheckFinite(DataType::kFloat32),
      IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult, "2 of 3 entries"));
}

// The least number that is rounded to infinity as `type`; of doubles the largest that is not.
double EdgeOf(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return 0x1.FFFFFFp127;
    case DataType::kBfloat16:
      return 0x1.FFp127;
    case DataType::kFloat16:
      return 65520;
    default:
      return MaxOf(type);
  }
}

// What passes the check is finite when it is served, and what does not is not, however near.
template <typename T>
void ExpectServedAsChecked(DataType state, DataType dtype) {
  int served = 0;
  int refused = 0;
  for (const double exponent : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75}) {
    for (const double divisor : {1.0, 0.7, 1e-3}) {
      const double edge = std::pow(EdgeOf(dtype), 1 / exponent) * divisor;
      if (!(edge <= MaxOf(state))) continue;
      T v = static_cast<T>(edge);
      for (int k = 0; k < 50; ++k) v = std::nextafter(v, T{0});
      for (int k = 0; k < 100; ++k) {
        const auto op = Bounded({v}, 0, kInfinity, Power{exponent, 0}, divisor, state);
        const bool finite = std::isfinite(Elements(op, {.dtype = dtype})[0]);
        ASSERT_EQ(op.CheckFinite(dtype).ok(), finite)
            << "(" << v << "/" << divisor << ")^" << exponent << " as " << NameOf(dtype);
        ++(finite ? served : refused);
        v = std::nextafter(v, std::numeric_limits<T>::max());
      }
    }
  }
  EXPECT_GT(served, 0);
  EXPECT_GT(refused, 0) << NameOf(state) << " as " << NameOf(dtype);
}

TEST(LinearOperatorDiagTest, WhatIsCheckedIsWhatIsServed) {
  for (const DataType dtype : kWireTypes) {
    ExpectServedAsChecked<float>(DataType::kFloat32, dtype);
    ExpectServedAsChecked<double>(DataType::kFloat64, dtype);
  }
}

TEST(LinearOperatorDiagTest, MultiplyIsTheDenseDiagonalProduct) {
  std::mt19937 random(9);
  const int64_t rows = 5;
  const int64_t cols = 3;
  std::vector<double> v = RandomDense(random, rows, cols).values;
  for (double& x : v) x *= x;
  const auto op = Operator({.rows = rows, .cols = cols, .dtype = DataType::kFloat64}, v,
                           Power{-1, 0.1}, 1, true);
  const std::vector<double> x = RandomDense(random, rows, cols).values;
  std::vector<double> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) want[i] += (i == j ? 1 / (v[i] + 0.1) : 0) * x[j];
  }
  const TensorView view{.dtype = DataType::kFloat64};
  std::vector<std::byte> out(x.size() * 8);
  ASSERT_EQ(op.Multiply(view, 0, 0, ToBytes(x, view.dtype), out), absl::OkStatus());
  ExpectNear(FromBytes(out, view.dtype), want, 0x1p-51);
}

TEST(LinearOperatorDiagTest, MultiplyRefusesWhatIsNotFinite) {
  const auto op = Operator(k3x2, {1, 2, 3, 4, 5, 1e30}, std::nullopt, 1, true);
  const TensorView view{.layout = Layout::kOutIn, .split_bias = true};
  std::vector<std::byte> out(8);
  for (const double bad : {kInfinity, -kInfinity, std::nan("")}) {
    const absl::Status status = op.Multiply(view, 0, 2, ToBytes({1, bad}, DataType::kFloat32), out);
    EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kNonFiniteInput,
                                "element 3 of weight FLOAT32 [2, 2]: x is"));
    EXPECT_EQ(FieldOf(status), "weight");
    EXPECT_EQ(FieldOf(status, "element"), "3");
  }
  std::vector<std::byte> half(4);
  EXPECT_THAT(
      op.Multiply({.dtype = DataType::kFloat16}, 0, 3, ToBytes({2, 6e4}, DataType::kFloat16), half),
      IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
              "element 4 of result FLOAT16 [3, 2]: the product is 300000"));
  EXPECT_THAT(op.Multiply(view, 1, 0, ToBytes({1, 1e10}, DataType::kFloat32), out),
              IsError(absl::StatusCode::kFailedPrecondition, reason::kNonFiniteResult,
                      "element 1 of bias FLOAT32 [2]: the product is 1e+40"));
}

}  // namespace
}  // namespace fisherd::core
