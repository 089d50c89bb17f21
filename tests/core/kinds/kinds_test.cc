#include <limits>

#include "absl/strings/str_format.h"
#include "core/kinds/kind.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

FactorSpec GoodSpec() {
  return {.kind = FullyConnectedDiagonalSpec{.input_size = 3, .output_size = 2}};
}

void ExpectRefused(const FactorSpec& spec, const std::string& field, const std::string& message) {
  const absl::Status status = MakeKind(spec).status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, message));
  EXPECT_EQ(FieldOf(status), field);
}

TEST(KindsTest, MakesTheKindAskedFor) {
  const auto kind = MakeKind(GoodSpec());
  ASSERT_EQ(kind.status(), absl::OkStatus());
  EXPECT_EQ((*kind)->name(), "FullyConnectedDiagonal");
}

TEST(KindsTest, RefusesNoKind) { ExpectRefused({}, "kind", "no kind of factor"); }

TEST(KindsTest, RefusesBadCounts) {
  for (const int bad : {0, -1, 4097, std::numeric_limits<int>::max()}) {
    FactorSpec spec = GoodSpec();
    spec.towers = bad;
    ExpectRefused(spec, "towers", absl::StrFormat("towers is %d; expected 1 to 4096", bad));
    spec = GoodSpec();
    spec.sources = bad;
    ExpectRefused(spec, "sources", absl::StrFormat("sources is %d; expected 1 to 4096", bad));
  }
  FactorSpec spec = GoodSpec();
  spec.towers = spec.sources = 4096;
  EXPECT_EQ(MakeKind(spec).status(), absl::OkStatus());
}

TEST(KindsTest, RefusesBadTypes) {
  for (const DataType bad : {DataType::kUnspecified, DataType::kBfloat16, DataType::kFloat16}) {
    FactorSpec spec = GoodSpec();
    spec.dtype = bad;
    ExpectRefused(spec, "dtype", "expected FLOAT32 or FLOAT64");
  }
}

TEST(KindsTest, OnesNeedZeroDebiasOff) {
  FactorSpec spec = GoodSpec();
  spec.initial_covariance = InitialCovariance::kOnes;
  ExpectRefused(spec, "initial_covariance", "ONES with zero_debias on");
  spec.zero_debias = false;
  EXPECT_EQ(MakeKind(spec).status(), absl::OkStatus());
}

}  // namespace
}  // namespace fisherd::core
