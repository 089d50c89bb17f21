#include "core/kinds/fully_connected_diagonal/contribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <memory>
#include <vector>

#include "core/error.h"

namespace fisherd::core {
namespace {

using ::testing::HasSubstr;

BatchHeader Header(DataType dtype) {
  BatchHeader header;
  header.rows = 7;
  header.form = BatchForm::kContribution;
  header.tensors = {{TensorRole::kContribution, 0, dtype, {3, 2}}};
  return header;
}

TEST(ContributionTest, ConvertsEveryWireTypeAndFindsTheLargest) {
  const std::vector<uint16_t> bfloats = {0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x3F00};
  for (const DataType state : {DataType::kFloat32, DataType::kFloat64}) {
    const auto batch = NewContribution(Header(DataType::kBfloat16), state, nullptr);
    const auto bytes = std::as_bytes(std::span(bfloats));
    ASSERT_TRUE(batch->Add(0, 0, bytes.first(6)).ok());
    ASSERT_TRUE(batch->Add(0, 3, bytes.subspan(6)).ok());
    ASSERT_TRUE(batch->Finish().ok());
    EXPECT_TRUE(batch->is_contribution());
    EXPECT_EQ(batch->contribution().max, 4);
    EXPECT_EQ(batch->examples(), 7);
    const std::vector<double> want = {0, 1, 2, 3, 4, 0.5};
    for (size_t i = 0; i < want.size(); ++i) {
      const double got = state == DataType::kFloat64
                             ? static_cast<const double*>(batch->contribution().elements)[i]
                             : static_cast<const float*>(batch->contribution().elements)[i];
      EXPECT_EQ(got, want[i]);
    }
  }
}

TEST(ContributionTest, SaysWhatStoodForN) {
  BatchHeader header = Header(DataType::kFloat32);
  header.examples = 2.5;
  EXPECT_EQ(NewContribution(header, DataType::kFloat32, nullptr)->examples(), 2.5);
  EXPECT_EQ(ContributionBytes(header, DataType::kFloat64), 48);
}

TEST(ContributionTest, RefusesWhatNoSumOfSquaresIs) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    double value;
    std::string_view why;
  } cases[] = {{-1, reason::kBadArgument},
               {kNan, reason::kNonFiniteInput},
               {HUGE_VAL, reason::kNonFiniteInput},
               {1e300, reason::kNonFiniteInput}};
  for (const auto& [value, why] : cases) {
    const auto batch = NewContribution(Header(DataType::kFloat64), DataType::kFloat32, nullptr);
    const std::vector<double> elements = {1, 2, 3, value, 5, 6};
    const absl::Status status = batch->Add(0, 0, std::as_bytes(std::span(elements)));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetails(status)->reason, why) << value;
    EXPECT_THAT(std::string(status.message()), HasSubstr("row 1, column 1"));
  }
}

}  // namespace
}  // namespace fisherd::core
