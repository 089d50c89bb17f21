#include "client/ctl/fisherctl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "client/cpp/crc32c.h"
#include "tests/client/fake_server.h"
#include "tests/test_path.h"

namespace fisherd::ctl {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class FisherctlTest : public testing::Test {
 protected:
  FisherctlTest() { setenv("FISHERD_SERVER", server_.address().c_str(), /*replace=*/1); }
  ~FisherctlTest() override { unsetenv("FISHERD_SERVER"); }

  int Run(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    return ctl::Run(arguments, out_, err_, /*err_is_terminal=*/false);
  }

  // A covariance [[1, 2], [3, 4]] with a bias [0, 5], of the type that is asked for.
  void ServeElements() {
    server_.on_describe = [this](const v1::DescribeFactorRequest& request,
                                 v1::DescribeFactorResponse& response) {
      response.mutable_factor()->set_name(request.name());
      response.mutable_factor()->mutable_spec()->set_dtype(dtype_.Get());
      return grpc::Status::OK;
    };
    server_.on_read = [this](const v1::ReadRequest& request,
                             grpc::ServerWriter<v1::ReadResponse>& writer) {
      read_.Set(request);
      v1::ReadResponse response;
      v1::ReadHeader& header = *response.mutable_header();
      header.mutable_operator_()->set_class_name("LinearOperatorDiag");
      v1::TensorSpec& weight = *header.add_tensors();
      weight.set_role(v1::TENSOR_ROLE_WEIGHT);
      weight.set_dtype(request.dtype());
      weight.add_shape(2);
      weight.add_shape(2);
      v1::TensorSpec& bias = *header.add_tensors();
      bias.set_role(v1::TENSOR_ROLE_BIAS);
      bias.set_dtype(request.dtype());
      bias.add_shape(2);
      writer.Write(response);
      const Vector<double> all{{1, 2, 3, 4, 0, 5}};
      if (request.dtype() == v1::DATA_TYPE_FLOAT64) {
        WriteElements<double>(all, writer);
      } else {
        WriteElements<float>(all.cast<float>(), writer);
      }
      return grpc::Status::OK;
    };
  }

  template <typename Scalar>
  static void WriteElements(const Vector<Scalar>& all,
                            grpc::ServerWriter<v1::ReadResponse>& writer) {
    for (int tensor = 0; tensor < 2; ++tensor) {
      v1::ReadResponse response;
      v1::TensorChunk& chunk = *response.mutable_chunk();
      chunk.set_tensor(tensor);
      chunk.set_data(all.data() + 4 * tensor, (tensor == 0 ? 4 : 2) * sizeof(Scalar));
      chunk.set_crc32c(Crc32c(chunk.data()));
      writer.Write(response);
    }
  }

  Shared<v1::DataType> dtype_{v1::DATA_TYPE_FLOAT32};
  Shared<v1::ReadRequest> read_;
  std::ostringstream out_, err_;
  FakeServer server_;
};

TEST_F(FisherctlTest, HelpNeedsNoServer) {
  EXPECT_EQ(Run({"--help"}), kDone);
  EXPECT_THAT(out_.str(), HasSubstr("commands:"));
  EXPECT_EQ(err_.str(), "");
}

TEST_F(FisherctlTest, TheVersionNeedsNoServer) {
  EXPECT_EQ(Run({"--version"}), kDone);
  EXPECT_THAT(out_.str(), ::testing::MatchesRegex("fisherctl [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  EXPECT_EQ(err_.str(), "");
}

TEST_F(FisherctlTest, WrongUsageIsTwo) {
  EXPECT_EQ(Run({"frobnicate"}), kUsageError);
  EXPECT_THAT(err_.str(), HasSubstr("there is no command frobnicate"));
  EXPECT_EQ(Run({"damping", "set", "global", "much"}), kUsageError);
  EXPECT_THAT(err_.str(), HasSubstr("VALUE is a finite number, not \"much\""));
  EXPECT_EQ(Run({"matpower", "f", "--exponent", "half", "--damping", "1"}), kUsageError);
  EXPECT_THAT(err_.str(), HasSubstr("--exponent is a finite number, not \"half\""));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(FisherctlTest, AnErrorOfTheServerIsOne) {
  server_.on_describe = [](const v1::DescribeFactorRequest&, v1::DescribeFactorResponse&) {
    return Error(grpc::StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "there is no factor \"f\"");
  };
  EXPECT_EQ(Run({"describe", "f"}), kRpcError);
  EXPECT_EQ(err_.str(),
            "fisherctl: NOT_FOUND: there is no factor \"f\" (FACTOR_NOT_FOUND); try again in "
            "2.5s\n");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(FisherctlTest, TheServerFlagGoesBeforeTheEnvironment) {
  setenv("FISHERD_SERVER", "127.0.0.1:1", 1);
  server_.on_list = [](const v1::ListFactorsRequest&, v1::ListFactorsResponse&) {
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"list", "--server", server_.address()}), kDone) << err_.str();
}

TEST_F(FisherctlTest, ListsFactors) {
  server_.on_list = [](const v1::ListFactorsRequest& request, v1::ListFactorsResponse& response) {
    response.add_factors()->set_name(request.prefix() + "0");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"list", "mlp/"}), kDone);
  EXPECT_THAT(out_.str(), HasSubstr("mlp/0"));
  EXPECT_EQ(Run({"list", "--json"}), kDone);
  EXPECT_THAT(out_.str(), HasSubstr("\"factors\": [\n"));
  EXPECT_THAT(out_.str(), HasSubstr("\"name\": \"0\""));
}

TEST_F(FisherctlTest, GetsACovariance) {
  ServeElements();
  EXPECT_EQ(Run({"get", "f"}), kDone) << err_.str();
  EXPECT_TRUE(read_.Get().operator_().has_covariance());
  EXPECT_EQ(read_.Get().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(out_.str(), HasSubstr("f covariance: LinearOperatorDiag"));
  EXPECT_THAT(out_.str(), HasSubstr("[3, 2], 6 elements"));
  EXPECT_THAT(out_.str(), HasSubstr("mean          2.5"));
  EXPECT_THAT(out_.str(), HasSubstr("[2]       0       5\n"));
}

TEST_F(FisherctlTest, ReadsInTheTypeOfTheState) {
  dtype_.Set(v1::DATA_TYPE_FLOAT64);
  ServeElements();
  const std::string path = TestPath() + ".npy";
  EXPECT_EQ(Run({"get", "f", "--output", path, "--json"}), kDone) << err_.str();
  EXPECT_EQ(read_.Get().dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_THAT(out_.str(), HasSubstr("\"shape\":[3,2],\"min\":0,\"max\":5"));
  EXPECT_THAT(out_.str(), HasSubstr(".npy\"}"));
  EXPECT_EQ(std::filesystem::file_size(path), 128 + 6 * sizeof(double));
  std::filesystem::remove(path);
}

TEST_F(FisherctlTest, AFileThatCannotBeWrittenIsAnError) {
  ServeElements();
  EXPECT_EQ(Run({"get", "f", "--output", testing::TempDir() + "no such folder/x.npy"}), kRpcError);
  EXPECT_THAT(err_.str(), HasSubstr("cannot write"));
}

TEST_F(FisherctlTest, MatpowerTakesDampingByValueAndByName) {
  ServeElements();
  EXPECT_EQ(Run({"matpower", "f", "--exponent", "-0.5", "--damping", "1e-3"}), kDone);
  EXPECT_EQ(read_.Get().operator_().matpower().exponent(), -0.5);
  EXPECT_EQ(read_.Get().operator_().matpower().damping().value(), 1e-3);
  EXPECT_EQ(Run({"matpower", "f", "--exponent", "-1", "--damping", "global"}), kDone);
  EXPECT_EQ(read_.Get().operator_().matpower().damping().name(), "global");
  EXPECT_THAT(out_.str(), HasSubstr("f matpower(-1, global)"));
}

TEST_F(FisherctlTest, KeepsDampings) {
  Shared<v1::SetDampingRequest> set;
  server_.on_set_damping = [&](const v1::SetDampingRequest& request) {
    set.Set(request);
    return grpc::Status::OK;
  };
  server_.on_list_dampings = [](const v1::ListDampingsRequest&,
                                v1::ListDampingsResponse& response) {
    response.add_dampings()->set_name("global");
    return grpc::Status::OK;
  };
  server_.on_delete_damping = [](const v1::DeleteDampingRequest&) { return grpc::Status::OK; };
  EXPECT_EQ(Run({"damping", "set", "global", "0.25"}), kDone);
  EXPECT_EQ(out_.str(), "set\n");
  EXPECT_EQ(set.Get().value(), 0.25);
  EXPECT_EQ(Run({"damping", "list"}), kDone);
  EXPECT_EQ(out_.str(), "NAME    VALUE\nglobal      0\n");
  EXPECT_EQ(Run({"damping", "list", "--json"}), kDone);
  EXPECT_THAT(out_.str(), HasSubstr("\"dampings\": ["));
  EXPECT_EQ(Run({"damping", "delete", "global", "--json"}), kDone);
  EXPECT_EQ(out_.str(), "{}\n");
}

TEST_F(FisherctlTest, ResetsAndDeletes) {
  Shared<std::string> deleted;
  server_.on_reset = [](const v1::ResetFactorRequest& request, v1::ResetFactorResponse& response) {
    response.mutable_factor()->set_name(request.name());
    response.mutable_factor()->mutable_version()->set_incarnation(8);
    return grpc::Status::OK;
  };
  server_.on_delete = [&](const v1::DeleteFactorRequest& request) {
    deleted.Set(request.name());
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"reset", "f"}), kDone);
  EXPECT_THAT(out_.str(), HasSubstr("incarnation 8"));
  EXPECT_EQ(Run({"delete", "f"}), kDone);
  EXPECT_EQ(deleted.Get(), "f");
  EXPECT_EQ(out_.str(), "deleted\n");
}

TEST_F(FisherctlTest, WatchesUntilTheCountIsReached) {
  server_.on_watch = [](const v1::WatchRequest& request,
                        grpc::ServerWriter<v1::WatchResponse>& writer) {
    v1::WatchResponse response;
    for (int64_t step = 1; step <= 3; ++step) {
      v1::FactorEvent& event = *response.add_events();
      event.set_kind(v1::FACTOR_EVENT_KIND_STEP_ENDED);
      event.set_factor(request.prefix() + "0");
      event.set_step(step);
    }
    writer.Write(response);
    writer.Write(response);
    return Error(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN", "it shuts down");
  };
  EXPECT_EQ(Run({"watch", "mlp/", "--count", "4"}), kDone) << err_.str();
  EXPECT_EQ(std::ranges::count(out_.str(), '\n'), 4);
  EXPECT_THAT(out_.str(), HasSubstr("STEP_ENDED       mlp/0  step 2: "));
  EXPECT_EQ(Run({"watch", "--json"}), kRpcError);
  EXPECT_EQ(std::ranges::count(out_.str(), '\n'), 6);
  EXPECT_THAT(out_.str(), HasSubstr("{\"kind\":\"FACTOR_EVENT_KIND_STEP_ENDED\",\"factor\":\"0\""));
  EXPECT_THAT(err_.str(), HasSubstr("SHUTTING_DOWN"));
  EXPECT_EQ(Run({"watch", "--count", "none"}), kUsageError);
  EXPECT_THAT(err_.str(), HasSubstr("--count is a number of events, not \"none\""));
}

TEST_F(FisherctlTest, HealthIsAnError_WhereItIsNotKnown) {
  EXPECT_EQ(Run({"health"}), kRpcError);
  EXPECT_THAT(err_.str(), HasSubstr("UNIMPLEMENTED"));
}

}  // namespace
}  // namespace fisherd::ctl
