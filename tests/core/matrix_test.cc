#include "core/matrix.h"

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

using ::testing::Each;
using ::testing::SizeIs;

TEST(MatrixTest, IsAlignedAndFillable) {
  for (const DataType dtype : {DataType::kFloat32, DataType::kFloat64}) {
    for (const int64_t cols : {1, 7, 16, 33}) {
      const std::unique_ptr<Matrix> matrix = Matrix::New({.rows = 3, .cols = cols, .dtype = dtype});
      ASSERT_NE(matrix, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix->elements<std::byte>().data()) % kAlignment, 0);
      EXPECT_EQ(matrix->Fill(2.5), absl::OkStatus());
      EXPECT_THAT(ValuesOf(*matrix), Each(2.5));
      EXPECT_THAT(ValuesOf(*matrix), SizeIs(3 * cols));
    }
  }
}

TEST(MatrixTest, Shape) {
  const MatrixShape shape{.rows = 3, .cols = 5, .dtype = DataType::kFloat64};
  EXPECT_EQ(shape.size(), 15);
  EXPECT_EQ(shape.bytes(), 120);
  EXPECT_EQ(Matrix::New(shape)->shape(), shape);
}

TEST(MatrixTest, LargeOnesBeginWithAHugePage) {
  const AlignedArray<std::byte> large = MakeAlignedArray<std::byte>(5 << 20);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(large.get()) % (2 << 20), 0);
  large[(5 << 20) - 1] = std::byte{1};
}

TEST(MatrixTest, AllocatesNothingToo) { EXPECT_NE(MakeAlignedArray<float>(0), nullptr); }

TEST(MatrixTest, SizeBeyondAddressesIsNull) {
  EXPECT_EQ(AllocateAligned(SIZE_MAX), nullptr);
  EXPECT_EQ(AllocateAligned(SIZE_MAX - kAlignment + 2), nullptr);
}

}  // namespace
}  // namespace fisherd::core
