// SPEC §6, for the unary calls, Read and Multiply: code, reason, message, metadata, and that
// nothing has changed.

#include <cmath>
#include <functional>
#include <limits>

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using Stub = v1::FactorService::Stub;
using grpc::StatusCode;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Expected {
  StatusCode code;
  const char* reason;
  const char* message;
  std::map<std::string, std::string> metadata = {};
};

class UnaryErrorsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    CreateGolden("f");
    Create("fresh", LayerSpec(2, 2));
    SetDamping("d", 0.5);
    SetDamping("zero", 0);
  }

  // Everything that a client can see.
  std::string State() {
    v1::ListFactorsResponse factors;
    EXPECT_TRUE(Call(&Stub::ListFactors, v1::ListFactorsRequest(), &factors).ok());
    v1::ListDampingsResponse dampings;
    EXPECT_TRUE(Call(&Stub::ListDampings, v1::ListDampingsRequest(), &dampings).ok());
    return factors.DebugString() + dampings.DebugString();
  }

  void Expect(const std::function<grpc::Status()>& call, const Expected& expected) {
    SCOPED_TRACE(expected.message);
    const std::string before = State();
    const grpc::Status status = call();
    EXPECT_THAT(status, IsRpcError(expected.code, expected.reason, expected.message));
    const auto metadata = ErrorInfoOf(RpcStatusOf(status)).metadata();
    for (const auto& [key, value] : expected.metadata) {
      ASSERT_TRUE(metadata.contains(key)) << key;
      EXPECT_EQ(metadata.at(key), value);
    }
    EXPECT_EQ(State(), before);
  }

  void ExpectCreate(const std::string& name, const std::function<void(v1::FactorSpec&)>& change,
                    const Expected& expected) {
    v1::CreateFactorRequest request;
    request.set_name(name);
    *request.mutable_spec() = LayerSpec(2, 2);
    change(*request.mutable_spec());
    v1::CreateFactorResponse response;
    Expect([&] { return Call(&Stub::CreateFactor, request, &response); }, expected);
  }

  void ExpectRegister(const v1::Operator& op, int64_t every, const Expected& expected) {
    v1::RegisterRequest request;
    request.set_factor("f");
    *request.mutable_operator_() = op;
    if (every != 0) {
      request.mutable_policy()->set_kind(v1::REFRESH_KIND_EVERY_N_STEPS);
      request.mutable_policy()->set_steps(every);
    }
    v1::RegisterResponse response;
    Expect([&] { return Call(&Stub::Register, request, &response); }, expected);
  }

  void ExpectRead(const v1::ReadRequest& request, const Expected& expected) {
    Expect([&] { return ReadAll(stub(), request).status; }, expected);
    // Multiply takes the same operator, and refuses it in the same words.
    if (request.has_if_version_not()) return;
    v1::MultiplyHeader header;
    header.set_factor(request.factor());
    if (request.has_operator_()) *header.mutable_operator_() = request.operator_();
    header.set_layout(request.layout());
    header.set_dtype(request.dtype());
    if (request.has_min_version()) *header.mutable_min_version() = request.min_version();
    Expect([&] { return MultiplyAll(stub(), header, {}, v1::DATA_TYPE_FLOAT32, 1).status; },
           {expected.code, expected.reason, expected.message});
  }
};

TEST_P(UnaryErrorsTest, Names) {
  const char* bad[] = {"", "a//b", "/a", "a/", "a/./b", "..", "tab\there", "\x7f"};
  for (const char* name : bad) {
    ExpectCreate(name, [](auto&) {},
                 {StatusCode::INVALID_ARGUMENT, "BAD_NAME", "is not a name", {{"field", "name"}}});
    v1::SetDampingRequest request;
    request.set_name(name);
    v1::SetDampingResponse response;
    Expect([&] { return Call(&Stub::SetDamping, request, &response); },
           {StatusCode::INVALID_ARGUMENT, "BAD_NAME", "is not a name"});
  }
  ExpectCreate(std::string(257, 'x'), [](auto&) {},
               {StatusCode::INVALID_ARGUMENT, "BAD_NAME", "too long"});
  EXPECT_EQ(Create(std::string(256, 'x'), LayerSpec(1, 1)).name().size(), 256);
}

TEST_P(UnaryErrorsTest, Specifications) {
  const auto bad = [](const char* message, const char* field) {
    return Expected{StatusCode::INVALID_ARGUMENT,
                    "BAD_ARGUMENT",
                    message,
                    {{"factor", "new"}, {"field", field}}};
  };
  const auto layer = [](v1::FactorSpec& spec) { return spec.mutable_fully_connected_diagonal(); };
  ExpectCreate(
      "new", [](auto& spec) { spec.clear_kind(); }, bad("kind", "spec.kind"));
  ExpectCreate(
      "new", [&](auto& spec) { layer(spec)->set_input_size(0); },
      bad("input_size is 0", "input_size"));
  ExpectCreate(
      "new", [&](auto& spec) { layer(spec)->set_output_size(-3); },
      bad("output_size is -3", "output_size"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_towers(-1); }, bad("towers is -1", "towers"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_towers(4097); }, bad("towers is 4097", "towers"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_sources(4097); }, bad("sources is 4097", "sources"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_dtype(v1::DATA_TYPE_FLOAT16); }, bad("FLOAT16", "dtype"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_dtype(static_cast<v1::DataType>(99)); },
      bad("99", "spec.dtype"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_initial_covariance(v1::INITIAL_COVARIANCE_ONES); },
      bad("zero_debias", "initial_covariance"));
  ExpectCreate(
      "new", [](auto& spec) { spec.set_tower_weighting(static_cast<v1::TowerWeighting>(7)); },
      bad("7", "spec.tower_weighting"));
}

TEST_P(UnaryErrorsTest, ExistingNamesAndBudgets) {
  ExpectCreate("f", [](auto& spec) { spec.set_towers(2); },
               {StatusCode::ALREADY_EXISTS,
                "SPEC_DIFFERS",
                "factor \"f\" exists with another",
                {{"factor", "f"}}});
  // 268 MB of state and as much again; the budget is 256 MiB.
  ExpectCreate("huge",
               [](auto& spec) {
                 spec.mutable_fully_connected_diagonal()->set_input_size(8192);
                 spec.mutable_fully_connected_diagonal()->set_output_size(8192);
                 spec.mutable_fully_connected_diagonal()->set_has_bias(false);
               },
               {StatusCode::RESOURCE_EXHAUSTED, "STATE_BUDGET", "536870912", {{"factor", "huge"}}});
  // Beyond what a size can say.
  ExpectCreate("huger",
               [](auto& spec) {
                 spec.mutable_fully_connected_diagonal()->set_input_size(int64_t{1} << 40);
                 spec.mutable_fully_connected_diagonal()->set_output_size(int64_t{1} << 40);
               },
               {StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "", {{"factor", "huger"}}});
}

TEST_P(UnaryErrorsTest, WhatIsNotThere) {
  const Expected missing = {
      StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "no factor \"missing\"", {{"factor", "missing"}}};
  const auto named = [&](auto method, auto request, auto response) {
    request.set_name("missing");
    Expect([&] { return Call(method, request, &response); }, missing);
  };
  named(&Stub::DescribeFactor, v1::DescribeFactorRequest(), v1::DescribeFactorResponse());
  named(&Stub::DeleteFactor, v1::DeleteFactorRequest(), v1::DeleteFactorResponse());
  named(&Stub::ResetFactor, v1::ResetFactorRequest(), v1::ResetFactorResponse());
  const auto of_factor = [&](auto method, auto request, auto response) {
    request.set_factor("missing");
    Expect([&] { return Call(method, request, &response); }, missing);
  };
  of_factor(&Stub::Register, v1::RegisterRequest(), v1::RegisterResponse());
  of_factor(&Stub::Unregister, v1::UnregisterRequest(), v1::UnregisterResponse());
  of_factor(&Stub::UpdateInverses, v1::UpdateInversesRequest(), v1::UpdateInversesResponse());
  ExpectRead(ReadOf("missing"), missing);

  v1::DeleteDampingRequest remove;
  remove.set_name("none");
  v1::DeleteDampingResponse removed;
  Expect([&] { return Call(&Stub::DeleteDamping, remove, &removed); },
         {StatusCode::NOT_FOUND, "DAMPING_NOT_FOUND", "none"});
  v1::UnregisterRequest unregister;
  unregister.set_factor("f");
  *unregister.mutable_operator_() = Matpower(-1, "d");
  v1::UnregisterResponse unregistered;
  Expect([&] { return Call(&Stub::Unregister, unregister, &unregistered); },
         {StatusCode::NOT_FOUND, "REGISTRATION_NOT_FOUND", "is not registered", {{"factor", "f"}}});
}

TEST_P(UnaryErrorsTest, DampingValues) {
  for (const double value : {-1.0, std::nan(""), kInfinity}) {
    v1::SetDampingRequest request;
    request.set_name("d");
    request.set_value(value);
    v1::SetDampingResponse response;
    Expect([&] { return Call(&Stub::SetDamping, request, &response); },
           {StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "expected a finite number"});
  }
}

TEST_P(UnaryErrorsTest, Registrations) {
  const auto bad = [](const char* message) {
    return Expected{StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", message, {{"factor", "f"}}};
  };
  ExpectRegister({}, 0, bad("operator"));
  ExpectRegister(Covariance(), 0, bad("always at hand"));
  ExpectRegister(Cholesky(0.5), 0, bad("name of a damping function"));
  ExpectRegister(Matpower(kInfinity, "d"), 0, bad("exponent"));
  ExpectRegister(Matpower(-1, "d"), -2, bad("steps is -2"));
  ExpectRegister(Matpower(-1, "none"), 0,
                 {StatusCode::NOT_FOUND, "DAMPING_NOT_FOUND", "none", {{"factor", "f"}}});
}

TEST_P(UnaryErrorsTest, Pages) {
  v1::ListFactorsRequest request;
  v1::ListFactorsResponse response;
  request.set_page_size(-1);
  Expect(
      [&] { return Call(&Stub::ListFactors, request, &response); },
      {StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "page_size is -1", {{"field", "page_size"}}});
  request.set_page_size(1);
  request.set_page_token("not a token");
  Expect([&] { return Call(&Stub::ListFactors, request, &response); },
         {StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "page_token", {{"field", "page_token"}}});
}

TEST_P(UnaryErrorsTest, Reads) {
  const auto bad = [](const char* message) {
    return Expected{StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", message, {{"factor", "f"}}};
  };
  ExpectRead(ReadOf(""), {StatusCode::INVALID_ARGUMENT, "BAD_NAME", "is not a name"});
  ExpectRead(ReadOf("f", {}), bad("operator"));
  ExpectRead(ReadOf("f", Matpower(kInfinity, 0.5)), bad("exponent is inf"));
  ExpectRead(ReadOf("f", Cholesky(-0.5)), bad("damping is -0.5"));
  ExpectRead(ReadOf("f", Cholesky(std::nan(""))), bad("damping is nan"));
  v1::ReadRequest request = ReadOf("f");
  request.set_dtype(static_cast<v1::DataType>(9));
  ExpectRead(request, bad("dtype is 9"));
  request = ReadOf("f");
  request.set_layout(static_cast<v1::Layout>(9));
  ExpectRead(request, bad("layout is 9"));
  request = ReadOf("f");
  request.mutable_min_version()->set_step(1);
  ExpectRead(request, bad("incarnation"));
  ExpectRead(ReadOf("f", Matpower(-1, "none")),
             {StatusCode::NOT_FOUND, "DAMPING_NOT_FOUND", "none", {{"factor", "f"}}});
  request = ReadOf("f");
  request.mutable_min_version()->set_incarnation(1);
  request.mutable_min_version()->set_step(1);
  ExpectRead(
      request,
      {StatusCode::FAILED_PRECONDITION, "OLD_INCARNATION", "incarnation 1", {{"factor", "f"}}});
}

TEST_P(UnaryErrorsTest, ResultsThatAreNotFinite) {
  const Expected zeros = {StatusCode::FAILED_PRECONDITION,
                          "NON_FINITE_RESULT",
                          "in 6 of 6 entries; the smallest v is 0",
                          {{"factor", "fresh"}}};
  ExpectRead(ReadOf("fresh", Matpower(-1, 0.0)), zeros);
  ExpectRead(ReadOf("fresh", Matpower(-1, "zero")), zeros);
  ExpectRead(ReadOf("fresh", CholeskyInverse(0)), zeros);
  ExpectRead(ReadOf("f", Matpower(400, 0.5)), {StatusCode::FAILED_PRECONDITION,
                                               "NON_FINITE_RESULT",
                                               "smallest v is 0.625",
                                               {{"factor", "f"}}});
  v1::ReadRequest request = ReadOf("f", Matpower(4, 0.5));
  EXPECT_TRUE(ReadAll(stub(), request).status.ok());
  request.set_dtype(v1::DATA_TYPE_FLOAT16);
  ExpectRead(request, {StatusCode::FAILED_PRECONDITION, "NON_FINITE_RESULT", "FLOAT16"});
}

FISHERD_ON_EVERY_TRANSPORT(UnaryErrorsTest);

}  // namespace
}  // namespace fisherd::server
