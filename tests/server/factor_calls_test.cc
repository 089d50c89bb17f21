#include "server/factor_calls.h"

#include <future>
#include <string>
#include <vector>

#include "tests/core/factor_harness.h"
#include "tests/core/testing.h"

namespace fisherd::server {
namespace {

using core::FieldOf;
using core::IsError;
using ::testing::ElementsAre;

class FactorCallsTest : public core::FactorTest {
 protected:
  v1::CreateFactorRequest CreateRequest(const std::string& name, int64_t inputs = 2) {
    v1::CreateFactorRequest request;
    request.set_name(name);
    auto& layer = *request.mutable_spec()->mutable_fully_connected_diagonal();
    layer.set_input_size(inputs);
    layer.set_output_size(2);
    return request;
  }
  absl::Status Create(const std::string& name) {
    v1::CreateFactorResponse response;
    return calls_.CreateFactor(CreateRequest(name), response);
  }
  absl::Status SetDamping(const std::string& name, double value) {
    v1::SetDampingRequest request;
    request.set_name(name);
    request.set_value(value);
    return calls_.SetDamping(request);
  }
  v1::RegisterRequest RegisterRequest(const std::string& factor, const std::string& damping) {
    v1::RegisterRequest request;
    request.set_factor(factor);
    request.mutable_operator_()->mutable_cholesky()->mutable_damping()->set_name(damping);
    return request;
  }
  absl::StatusOr<int> UpdateInverses(const std::string& factor) {
    v1::UpdateInversesRequest request;
    request.set_factor(factor);
    v1::UpdateInversesResponse response;
    std::promise<absl::Status> done;
    calls_.UpdateInverses(request, &response,
                          [&](const absl::Status& status) { done.set_value(status); });
    const absl::Status status = done.get_future().get();
    if (!status.ok()) return status;
    return response.updated();
  }

  FactorCalls calls_{&*registry_};
};

TEST_F(FactorCallsTest, CreatingIsIdempotentForOneSpecification) {
  v1::CreateFactorResponse response;
  ASSERT_TRUE(calls_.CreateFactor(CreateRequest("f"), response).ok());
  EXPECT_TRUE(response.created());
  EXPECT_EQ(response.factor().spec().towers(), 1);  // the default, filled in
  ASSERT_TRUE(calls_.CreateFactor(CreateRequest("f"), response).ok());
  EXPECT_FALSE(response.created());
  EXPECT_THAT(calls_.CreateFactor(CreateRequest("f", 3), response),
              IsError(absl::StatusCode::kAlreadyExists, core::reason::kSpecDiffers, "\"f\""));
}

TEST_F(FactorCallsTest, ErrorsNameTheFactor) {
  v1::CreateFactorRequest request;
  request.set_name("f");
  v1::CreateFactorResponse response;
  const absl::Status status = calls_.CreateFactor(request, response);
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, core::reason::kBadArgument,
                              "factor \"f\": "));
  EXPECT_EQ(FieldOf(status, "factor"), "f");
}

TEST_F(FactorCallsTest, ListsInPages) {
  for (const char* name : {"b", "a", "c/0"}) ASSERT_TRUE(Create(name).ok());
  v1::ListFactorsRequest request;
  request.set_page_size(2);
  v1::ListFactorsResponse page;
  ASSERT_TRUE(calls_.ListFactors(request, page).ok());
  ASSERT_EQ(page.factors_size(), 2);
  EXPECT_EQ(page.factors(0).name(), "a");
  EXPECT_EQ(page.factors(1).name(), "b");
  request.set_page_token(page.next_page_token());
  page.Clear();
  ASSERT_TRUE(calls_.ListFactors(request, page).ok());
  ASSERT_EQ(page.factors_size(), 1);
  EXPECT_EQ(page.factors(0).name(), "c/0");
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(FactorCallsTest, DampingsAreSetListedAndDeleted) {
  ASSERT_TRUE(SetDamping("global", 0.5).ok());
  ASSERT_TRUE(SetDamping("global", 0.25).ok());
  v1::ListDampingsResponse page;
  ASSERT_TRUE(calls_.ListDampings({}, page).ok());
  ASSERT_EQ(page.dampings_size(), 1);
  EXPECT_EQ(page.dampings(0).name(), "global");
  EXPECT_EQ(page.dampings(0).value(), 0.25);
  v1::DeleteDampingRequest request;
  request.set_name("global");
  EXPECT_TRUE(calls_.DeleteDamping(request).ok());
  EXPECT_THAT(calls_.DeleteDamping(request),
              IsError(absl::StatusCode::kNotFound, core::reason::kDampingNotFound, "global"));
}

TEST_F(FactorCallsTest, UpdateInversesComputesOneFactorOrAll) {
  ASSERT_TRUE(SetDamping("d", 1).ok());
  EXPECT_EQ(*UpdateInverses(""), 0);
  for (const char* name : {"a", "b", "none"}) ASSERT_TRUE(Create(name).ok());
  for (const char* name : {"a", "b"}) {
    v1::RegisterResponse response;
    ASSERT_TRUE(calls_.Register(RegisterRequest(name, "d"), response).ok());
    EXPECT_FALSE(response.registration().has_computed_from());
  }
  EXPECT_EQ(*UpdateInverses("a"), 1);
  EXPECT_EQ(*UpdateInverses("none"), 0);
  EXPECT_EQ(*UpdateInverses(""), 2);
  EXPECT_THAT(UpdateInverses("missing").status(),
              IsError(absl::StatusCode::kNotFound, core::reason::kFactorNotFound, "missing"));
}

// What could be computed stays computed.
TEST_F(FactorCallsTest, UpdateInversesOfAllNamesTheFactorThatFails) {
  ASSERT_TRUE(SetDamping("d", 1).ok());
  ASSERT_TRUE(SetDamping("zero", 0).ok());
  for (const char* name : {"a", "b"}) ASSERT_TRUE(Create(name).ok());
  v1::RegisterResponse response;
  ASSERT_TRUE(calls_.Register(RegisterRequest("a", "d"), response).ok());
  v1::RegisterRequest failing;
  failing.set_factor("b");
  failing.mutable_operator_()->mutable_cholesky_inverse()->mutable_damping()->set_name("zero");
  ASSERT_TRUE(calls_.Register(failing, response).ok());

  const absl::Status status = UpdateInverses("").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kFailedPrecondition, core::reason::kNonFiniteResult,
                              "factor \"b\": "));
  EXPECT_EQ(FieldOf(status, "factor"), "b");
  const auto a = (*registry_->Find("a"))->Describe();
  EXPECT_TRUE(a.registrations[0].computed_from.has_value());
}

TEST_F(FactorCallsTest, UnregisterDropsARegistration) {
  ASSERT_TRUE(SetDamping("d", 1).ok());
  ASSERT_TRUE(Create("f").ok());
  v1::RegisterResponse response;
  ASSERT_TRUE(calls_.Register(RegisterRequest("f", "d"), response).ok());
  v1::UnregisterRequest request;
  request.set_factor("f");
  *request.mutable_operator_() = RegisterRequest("f", "d").operator_();
  EXPECT_TRUE(calls_.Unregister(request).ok());
  const absl::Status status = calls_.Unregister(request);
  EXPECT_THAT(status, IsError(absl::StatusCode::kNotFound, core::reason::kRegistrationNotFound,
                              "factor \"f\": "));
}

TEST_F(FactorCallsTest, ResetAndDeleteChangeAFactorsLife) {
  ASSERT_TRUE(Create("f").ok());
  v1::ResetFactorRequest reset;
  reset.set_name("f");
  v1::ResetFactorResponse response;
  ASSERT_TRUE(calls_.ResetFactor(reset, response).ok());
  EXPECT_GT(response.factor().version().incarnation(), 1000);
  v1::DeleteFactorRequest remove;
  remove.set_name("f");
  EXPECT_TRUE(calls_.DeleteFactor(remove).ok());
  const auto gone =
      IsError(absl::StatusCode::kNotFound, core::reason::kFactorNotFound, "no factor \"f\"");
  EXPECT_THAT(calls_.DeleteFactor(remove), gone);
  EXPECT_THAT(calls_.ResetFactor(reset, response), gone);
  v1::DescribeFactorRequest describe;
  describe.set_name("f");
  v1::DescribeFactorResponse description;
  EXPECT_THAT(calls_.DescribeFactor(describe, description), gone);
}

}  // namespace
}  // namespace fisherd::server
