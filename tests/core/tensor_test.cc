#include "core/tensor.h"

#include <limits>

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

TEST(TensorTest, Types) {
  EXPECT_EQ(SizeOf(DataType::kFloat32), 4);
  EXPECT_EQ(SizeOf(DataType::kFloat64), 8);
  EXPECT_EQ(SizeOf(DataType::kBfloat16), 2);
  EXPECT_EQ(SizeOf(DataType::kFloat16), 2);
  EXPECT_EQ(SizeOf(DataType::kUnspecified), 0);
  EXPECT_EQ(SizeOf(static_cast<DataType>(99)), 0);
  EXPECT_EQ(NameOf(DataType::kBfloat16), "BFLOAT16");
  EXPECT_EQ(NameOf(DataType::kUnspecified), "UNSPECIFIED");
}

TEST(TensorTest, MaxIsTheLargestFiniteValue) {
  for (const DataType type :
       {DataType::kFloat32, DataType::kFloat64, DataType::kBfloat16, DataType::kFloat16}) {
    const double max = MaxOf(type);
    EXPECT_EQ(FromBytes(ToBytes({max}, type), type)[0], max) << NameOf(type);
    const double beyond = max * (1 + 0x1p-7);  // a step of bfloat16, more than one of the others
    EXPECT_TRUE(std::isinf(FromBytes(ToBytes({beyond}, type), type)[0])) << NameOf(type);
  }
}

TEST(TensorTest, Describe) {
  EXPECT_EQ(Describe({.role = TensorRole::kOutputsGrads,
                      .source = 2,
                      .dtype = DataType::kFloat32,
                      .shape = {128, 10}}),
            "outputs_grads(source 2) FLOAT32 [128, 10]");
  EXPECT_EQ(Describe({.role = TensorRole::kInputs, .dtype = DataType::kFloat16, .shape = {3}}),
            "inputs FLOAT16 [3]");
  EXPECT_EQ(Describe({.role = TensorRole::kRowWeights, .source = 1}),
            "row_weights(source 1) UNSPECIFIED []");
}

TEST(TensorTest, ElementCount) {
  EXPECT_EQ(*ElementCount({}), 1);
  EXPECT_EQ(*ElementCount({3, 5, 7}), 105);
  EXPECT_EQ(*ElementCount({int64_t{1} << 59}), int64_t{1} << 59);
  EXPECT_EQ(*ElementCount({int64_t{1} << 29, int64_t{1} << 30}), int64_t{1} << 59);
}

TEST(TensorTest, ElementCountRefusesWhatIsNoShape) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{0},
                                         {-1},
                                         {3, 0},
                                         {0, kMax},
                                         {kMax},
                                         {kMin},
                                         {(int64_t{1} << 59) + 1},
                                         {int64_t{1} << 30, int64_t{1} << 30},
                                         {int64_t{1} << 32, int64_t{1} << 32},
                                         {-1, -1}}) {
    EXPECT_THAT(ElementCount(shape).status(),
                IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, "at least 1"));
  }
}

}  // namespace
}  // namespace fisherd::core
