#include "fisherd/client.h"

#include <gmock/gmock.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <latch>
#include <memory>

#include "absl/strings/str_cat.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

class ClientTest : public testing::Test {
 protected:
  FakeServer server_;
  Client client_ = server_.Connect();
};

TEST_F(ClientTest, CreateFactorSaysWhatTheFactorIs) {
  Shared<v1::CreateFactorRequest> created;
  server_.on_create = [&](const v1::CreateFactorRequest& request,
                          v1::CreateFactorResponse& response) {
    created.Set(request);
    response.mutable_factor()->set_name(request.name());
    response.mutable_factor()->mutable_version()->set_incarnation(5);
    return grpc::Status::OK;
  };
  const auto factor = client_.CreateFactor(
      "mlp/0", FullyConnectedDiagonal{.input_size = 64, .output_size = 128, .has_bias = true},
      {.towers = 2, .sources = 3, .dtype = v1::DATA_TYPE_FLOAT64, .zero_debias = false});
  ASSERT_TRUE(factor.ok()) << factor.status();
  EXPECT_EQ(factor->version().incarnation(), 5u);
  const v1::CreateFactorRequest got = created.Get();
  EXPECT_EQ(got.name(), "mlp/0");
  const v1::FactorSpec& spec = got.spec();
  EXPECT_EQ(spec.fully_connected_diagonal().input_size(), 64);
  EXPECT_EQ(spec.fully_connected_diagonal().output_size(), 128);
  EXPECT_TRUE(spec.fully_connected_diagonal().has_bias());
  EXPECT_EQ(spec.towers(), 2);
  EXPECT_EQ(spec.sources(), 3);
  EXPECT_EQ(spec.dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_TRUE(spec.has_zero_debias());
  EXPECT_FALSE(spec.zero_debias());
}

TEST_F(ClientTest, CreateFactorSaysHowItsStepsAreGathered) {
  Shared<v1::FactorSpec> created;
  server_.on_create = [&](const v1::CreateFactorRequest& request, v1::CreateFactorResponse&) {
    created.Set(request.spec());
    return grpc::Status::OK;
  };
  const FullyConnectedDiagonal layer = {.input_size = 2, .output_size = 3};
  ASSERT_TRUE(client_.CreateFactor("f", layer).ok());
  EXPECT_FALSE(created.Get().has_gather_timeout());
  EXPECT_EQ(created.Get().window(), 0);
  ASSERT_TRUE(client_
                  .CreateFactor("f", layer,
                                {.update_mode = v1::UPDATE_MODE_ASYNCHRONOUS,
                                 .gather_policy = v1::GATHER_POLICY_PARTIAL,
                                 .gather_timeout = absl::Milliseconds(1500),
                                 .window = 7})
                  .ok());
  EXPECT_EQ(created.Get().update_mode(), v1::UPDATE_MODE_ASYNCHRONOUS);
  EXPECT_EQ(created.Get().gather_policy(), v1::GATHER_POLICY_PARTIAL);
  EXPECT_EQ(created.Get().gather_timeout().seconds(), 1);
  EXPECT_EQ(created.Get().gather_timeout().nanos(), 500'000'000);
  EXPECT_EQ(created.Get().window(), 7);
}

TEST_F(ClientTest, SetTowersSaysFromWhichStepOn) {
  server_.on_set_towers = [](const v1::SetTowersRequest& request, v1::SetTowersResponse& response) {
    EXPECT_EQ(request.name(), "f");
    EXPECT_EQ(request.towers(), 3);
    response.set_from_step(request.now() ? 8 : 11);
    return grpc::Status::OK;
  };
  EXPECT_EQ(*client_.SetTowers("f", 3), 11);
  EXPECT_EQ(*client_.SetTowers("f", 3, /*now=*/true), 8);
}

TEST_F(ClientTest, ErrorsKeepCodeMessageAndDetails) {
  server_.on_describe = [](const v1::DescribeFactorRequest& request, v1::DescribeFactorResponse&) {
    return Error(grpc::StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "there is none", request.name());
  };
  const absl::Status status = client_.Describe("mlp/9").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "there is none");
  EXPECT_EQ(ErrorReason(status), "FACTOR_NOT_FOUND");
  EXPECT_EQ(ErrorMetadata(status).at("factor"), "mlp/9");
}

TEST_F(ClientTest, ListGoesThroughAllPages) {
  Shared<std::vector<v1::ListFactorsRequest>> seen;
  server_.on_list = [&](const v1::ListFactorsRequest& request, v1::ListFactorsResponse& response) {
    auto requests = seen.Get();
    requests.push_back(request);
    seen.Set(requests);
    const int page = requests.size();
    response.add_factors()->set_name(absl::StrCat("f", 2 * page - 1));
    if (page == 3) return grpc::Status::OK;
    response.add_factors()->set_name(absl::StrCat("f", 2 * page));
    response.set_next_page_token(absl::StrCat("page ", page + 1));
    return grpc::Status::OK;
  };
  const auto factors = client_.List("mlp/");
  ASSERT_TRUE(factors.ok()) << factors.status();
  ASSERT_EQ(factors->size(), 5u);
  EXPECT_EQ(factors->at(4).name(), "f5");
  const auto requests = seen.Get();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].page_token(), "");
  EXPECT_EQ(requests[2].page_token(), "page 3");
  for (const auto& request : requests) EXPECT_EQ(request.prefix(), "mlp/");
}

TEST_F(ClientTest, AnErrorOnALaterPageIsTheAnswer) {
  server_.on_list = [](const v1::ListFactorsRequest& request, v1::ListFactorsResponse& response) {
    if (!request.page_token().empty()) {
      return Error(grpc::StatusCode::INVALID_ARGUMENT, "BAD_ARGUMENT", "page_token");
    }
    response.add_factors()->set_name("a");
    response.set_next_page_token("b");
    return grpc::Status::OK;
  };
  EXPECT_EQ(client_.List().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, ListDampingsGoesThroughAllPages) {
  server_.on_list_dampings = [](const v1::ListDampingsRequest& request,
                                v1::ListDampingsResponse& response) {
    response.add_dampings()->set_name(request.prefix() + request.page_token());
    if (request.page_token().empty()) response.set_next_page_token("2");
    return grpc::Status::OK;
  };
  const auto dampings = client_.ListDampings("d");
  ASSERT_TRUE(dampings.ok()) << dampings.status();
  ASSERT_EQ(dampings->size(), 2u);
  EXPECT_EQ(dampings->at(1).name(), "d2");
}

TEST_F(ClientTest, TheOtherCallsCarryTheirArguments) {
  server_.on_delete = [](const v1::DeleteFactorRequest& request) {
    EXPECT_EQ(request.name(), "f");
    return grpc::Status::OK;
  };
  server_.on_reset = [](const v1::ResetFactorRequest& request, v1::ResetFactorResponse& response) {
    response.mutable_factor()->set_name(request.name() + " anew");
    return grpc::Status::OK;
  };
  server_.on_set_damping = [](const v1::SetDampingRequest& request) {
    EXPECT_EQ(request.name(), "global");
    EXPECT_EQ(request.value(), 0.125);
    return grpc::Status::OK;
  };
  server_.on_delete_damping = [](const v1::DeleteDampingRequest& request) {
    EXPECT_EQ(request.name(), "global");
    return Error(grpc::StatusCode::NOT_FOUND, "DAMPING_NOT_FOUND", "no such damping");
  };
  server_.on_register = [](const v1::RegisterRequest& request, v1::RegisterResponse& response) {
    *response.mutable_registration()->mutable_operator_() = request.operator_();
    *response.mutable_registration()->mutable_policy() = request.policy();
    return grpc::Status::OK;
  };
  server_.on_unregister = [](const v1::UnregisterRequest& request) {
    EXPECT_EQ(request.factor(), "f");
    EXPECT_TRUE(request.operator_().has_cholesky());
    return grpc::Status::OK;
  };
  server_.on_update_inverses = [](const v1::UpdateInversesRequest& request,
                                  v1::UpdateInversesResponse& response) {
    response.set_updated(request.factor().empty() ? 12 : 1);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(client_.Delete("f").ok());
  EXPECT_EQ(client_.Reset("f")->name(), "f anew");
  EXPECT_TRUE(client_.SetDamping("global", 0.125).ok());
  EXPECT_EQ(ErrorReason(client_.DeleteDamping("global")), "DAMPING_NOT_FOUND");
  const auto registration = client_.Register("f", Cholesky("global"), EveryNSteps(10));
  EXPECT_EQ(registration->operator_().cholesky().damping().name(), "global");
  EXPECT_EQ(registration->policy().steps(), 10);
  EXPECT_TRUE(client_.Unregister("f", Cholesky("global")).ok());
  EXPECT_EQ(*client_.UpdateInverses(), 12);
  EXPECT_EQ(*client_.UpdateInverses("f"), 1);
}

TEST_F(ClientTest, CallsHaveADeadline) {
  const auto gate = std::make_shared<std::latch>(1);
  server_.on_describe = [gate](const v1::DescribeFactorRequest&, v1::DescribeFactorResponse&) {
    gate->wait();
    return grpc::Status::OK;
  };
  absl::StatusOr<Client> client =
      Client::Connect(server_.address(), {.call_timeout = absl::Milliseconds(20)});
  ASSERT_TRUE(client.ok());
  EXPECT_EQ(client->Describe("f").status().code(), absl::StatusCode::kDeadlineExceeded);
  gate->count_down();
}

TEST(ClientConnectTest, WithoutAServerSaysWhere) {
  auto server = std::make_unique<FakeServer>();
  const std::string address = server->address();
  server.reset();  // nobody listens there now
  const absl::Status status =
      Client::Connect(address, {.connect_timeout = absl::Milliseconds(50)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address));
}

TEST(ClientHealthTest, AsksTheStandardHealthService) {
  grpc::EnableDefaultHealthCheckService(true);
  v1::FactorService::Service unimplemented;
  grpc::ServerBuilder builder;
  builder.RegisterService(&unimplemented);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  grpc::EnableDefaultHealthCheckService(false);
  absl::StatusOr<Client> client = Client::Connect(absl::StrCat("127.0.0.1:", port));
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(client->CheckHealth().ok());
  server->GetHealthCheckService()->SetServingStatus(false);
  EXPECT_EQ(client->CheckHealth().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AServerWithoutHealthServiceIsUnimplemented) {
  EXPECT_EQ(client_.CheckHealth().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace fisherd
