#include "fisherd/operators.h"

#include <gtest/gtest.h>

namespace fisherd {
namespace {

TEST(OperatorsTest, AreTheContractsOperators) {
  EXPECT_TRUE(Covariance().has_covariance());
  EXPECT_EQ(Matpower(-0.75, 0.5).matpower().exponent(), -0.75);
  EXPECT_EQ(Matpower(-0.75, 0.5).matpower().damping().value(), 0.5);
  EXPECT_EQ(Cholesky("global").cholesky().damping().name(), "global");
  EXPECT_EQ(CholeskyInverse(2).cholesky_inverse().damping().value(), 2);
}

TEST(OperatorsTest, DampingIsImplicitFromNumbersAndNames) {
  EXPECT_EQ(Damping(0).proto().kind_case(), v1::Damping::kValue);  // not a null name
  EXPECT_EQ(Damping(0.25f).proto().value(), 0.25);
  EXPECT_EQ(Damping(std::string("a")).proto().name(), "a");
  EXPECT_EQ(Damping(std::string_view("b")).proto().name(), "b");
  EXPECT_EQ(Damping("").proto().kind_case(), v1::Damping::kName);
}

TEST(OperatorsTest, PoliciesAreTheContractsPolicies) {
  EXPECT_EQ(OnRead().kind(), v1::REFRESH_KIND_ON_READ);
  EXPECT_EQ(OnRequest().kind(), v1::REFRESH_KIND_ON_REQUEST);
  EXPECT_EQ(EveryNSteps(10).kind(), v1::REFRESH_KIND_EVERY_N_STEPS);
  EXPECT_EQ(EveryNSteps(10).steps(), 10);
}

}  // namespace
}  // namespace fisherd
