#include "server/read_call.h"

#include "tests/core/factor_harness.h"
#include "tests/core/testing.h"

namespace fisherd::server {
namespace {

using ReadCallTest = core::FactorTest;

TEST_F(ReadCallTest, DescribesAResult) {
  const auto factor = Create("f", Golden());
  core::ReadRequest request;
  request.op = {.kind = core::OperatorKind::kMatpower, .damping = 0.5};
  auto result = Read(*factor, request);
  ASSERT_TRUE(result.ok()) << result.status();
  result->steps_committed = 3;
  result->next = 5;
  result->total_weight = 0.25;
  result->version.step = 2;
  result->current_version.step = 3;
  result->cached = true;
  const v1::OperatorInfo info = OperatorInfoOf(*result);
  EXPECT_EQ(info.class_name(), "LinearOperatorDiag");
  EXPECT_EQ(info.range_dimension(), 6);
  EXPECT_EQ(info.domain_dimension(), 6);
  EXPECT_EQ(info.version().incarnation(), 1000);
  EXPECT_EQ(info.version().epoch(), 77);
  EXPECT_EQ(info.version().step(), 2);
  EXPECT_EQ(info.current_version().step(), 3);
  EXPECT_EQ(info.steps_committed(), 3);
  EXPECT_EQ(info.next(), 5);
  EXPECT_EQ(info.total_weight(), 0.25);
  EXPECT_EQ(info.damping(), 0.5);
  EXPECT_TRUE(info.cached());
}

TEST_F(ReadCallTest, TheCovarianceHasNoDampingAndUnchangedNoOperator) {
  core::ReadResult result;
  const v1::OperatorInfo info = OperatorInfoOf(result);
  EXPECT_FALSE(info.has_damping());
  EXPECT_EQ(info.class_name(), "");
}

TEST_F(ReadCallTest, AStallSaysForHowLong) {
  EXPECT_THAT(Stalled(absl::Seconds(60)),
              core::IsError(absl::StatusCode::kDeadlineExceeded, core::reason::kReadStalled,
                            "stood still for 1m"));
}

}  // namespace
}  // namespace fisherd::server
