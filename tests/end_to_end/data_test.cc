// fisherctl against a server with a data directory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/ctl/fisherctl.h"
#include "fisherd/client.h"
#include "server/server.h"
#include "tests/http_get.h"
#include "tests/test_path.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

class DataTest : public testing::Test {
 protected:
  DataTest() {
    std::filesystem::remove_all(directory_);
    Start(directory_ + "/data");
  }
  ~DataTest() override {
    client_.reset();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Start(const std::string& data_dir) {
    client_.reset();
    server_.reset();
    server::Options options;
    options.listen = {"127.0.0.1:0"};
    options.state_budget = options.batch_budget = 64 << 20;
    options.data_dir = data_dir;
    options.http = "127.0.0.1:0";
    options.disk_reserve = 1;
    auto server = server::Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = Client::Connect(Address());
    ASSERT_TRUE(client.ok()) << client.status();
    client_.emplace(*std::move(client));
  }
  std::string Address() const { return "127.0.0.1:" + std::to_string(server_->port()); }

  int Ctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--server", Address()});
    out_.str("");
    err_.str("");
    return ctl::Run(arguments, out_, err_, false);
  }

  // One step more, which counts 1 in the one element of the factor.
  void Step(const std::string& name) {
    ASSERT_TRUE(
        client_->CreateFactor(name, {.input_size = 1, .output_size = 1}, {.zero_debias = false})
            .ok());
    UpdateStream stream = client_->OpenUpdates();
    auto writer = stream.Open(name, 0, {.take_over = true});
    ASSERT_TRUE(writer.ok()) << writer.status();
    const Matrix<float> one = Matrix<float>::Constant(1, 1, 1);
    const auto step =
        writer->Write({.inputs = one, .outputs_grads = {one}}, {.decay = 1, .weight = 1});
    ASSERT_TRUE(step.ok()) << step.status();
    ASSERT_TRUE(writer->WaitEnded(*step).ok());
  }
  float Value(const std::string& name) {
    const auto reading = client_->Read<float>(name, Covariance());
    EXPECT_TRUE(reading.ok()) << reading.status();
    return reading.ok() ? reading->value.diag_part()[0] : -1;
  }

  std::string Get(const std::string& path) const { return HttpGet(server_->http_port(), path); }

  const std::string directory_ = TestPath();
  std::unique_ptr<server::Server> server_;
  std::optional<Client> client_;
  std::ostringstream out_, err_;
};

TEST_F(DataTest, AServerThatEndsWellHasEverythingAfterwards) {
  Step("f");
  Step("f");
  Start(directory_ + "/data");
  EXPECT_EQ(Value("f"), 2);
  EXPECT_EQ(client_->Describe("f")->durable(), 2);
  EXPECT_EQ(client_->Describe("f")->spec().durability(), v1::DURABILITY_LEVEL_SNAPSHOT);
}

TEST_F(DataTest, SnapshotsGenerationsAndBack) {
  Step("f");
  ASSERT_EQ(Ctl({"snapshot"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "saved 1 factors, 4 B\n");
  EXPECT_EQ(client_->Describe("f")->durable(), 1);
  Step("f");
  ASSERT_EQ(Ctl({"snapshot", "--json"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("\"factors_done\": \"1\""));
  ASSERT_EQ(Ctl({"generations", "f"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("GENERATION  STEP"));
  EXPECT_THAT(out_.str(), HasSubstr("\n         2     2"));
  ASSERT_EQ(Ctl({"restore", "f", "--generation=1"}), 0) << err_.str();
  EXPECT_EQ(Value("f"), 1);
  EXPECT_EQ(Ctl({"restore", "f", "--generation=9"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("has no generation 9 (GENERATION_NOT_FOUND)"));
  EXPECT_EQ(Ctl({"generations", "g"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("FACTOR_NOT_FOUND"));
}

TEST_F(DataTest, ExportsAndImportsOneAndMany) {
  Step("net/a/0");
  Step("net/b");
  const std::string file = directory_ + "/one.safetensors";
  ASSERT_EQ(Ctl({"export", "net/a/0", file}), 0) << err_.str();
  Step("net/a/0");
  ASSERT_EQ(Ctl({"import", file, "--name", "copy"}), 0) << err_.str();
  EXPECT_EQ(Value("copy"), 1);
  EXPECT_EQ(Ctl({"import", file}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("ALREADY_EXISTS"));
  EXPECT_EQ(Value("net/a/0"), 2);
  const std::string folder = directory_ + "/exports";
  ASSERT_EQ(Ctl({"export", "net/", folder}), 0) << err_.str();
  EXPECT_TRUE(std::filesystem::exists(folder + "/net/a/0.safetensors"));
  ASSERT_TRUE(client_->Delete("net/b").ok());
  Step("net/a/0");
  ASSERT_EQ(Ctl({"import", folder, "--replace"}), 0) << err_.str();
  EXPECT_EQ(Value("net/a/0"), 2);
  EXPECT_EQ(Value("net/b"), 1);
  std::ofstream(file) << "not a safetensors file";
  EXPECT_EQ(Ctl({"import", file, "--name", "bad"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("INVALID_ARGUMENT: not a file of fisherd"));
  EXPECT_EQ(Ctl({"export", "nothing", file}), 1);
  EXPECT_EQ(Ctl({"import", directory_ + "/nowhere"}), 1);
}

TEST_F(DataTest, ABackupStartsAsADataDirectory) {
  Step("f");
  ASSERT_EQ(Ctl({"backup", "monday"}), 0) << err_.str();
  const std::string path = out_.str().substr(0, out_.str().size() - 1);
  Step("f");
  EXPECT_EQ(Ctl({"backup", "monday"}), 1);
  std::filesystem::copy(path, directory_ + "/copy", std::filesystem::copy_options::recursive);
  Start(directory_ + "/copy");
  EXPECT_EQ(Value("f"), 1);
}

TEST_F(DataTest, WithoutADataDirectoryThereIsNothingToDo) {
  Start("");
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"snapshot"},
                                             {"generations", "f"},
                                             {"restore", "f", "--generation=1"},
                                             {"backup", "b"}}) {
    EXPECT_EQ(Ctl(command), 1) << command[0];
    EXPECT_THAT(err_.str(), HasSubstr("start it with --data-dir (NO_DATA_DIRECTORY)"));
  }
  const auto made = client_->CreateFactor("f", {.input_size = 1, .output_size = 1},
                                          {.durability = v1::DURABILITY_LEVEL_SYNC});
  EXPECT_EQ(ErrorReason(made.status()), "NO_DATA_DIRECTORY");
}

// At half of its bound the client asks, and goes on with what it then may forget.
TEST_F(DataTest, AClientNearItsBoundHasItsFactorsSaved) {
  constexpr int kSteps = 64;
  ASSERT_TRUE(client_
                  ->CreateFactor("f", {.input_size = 64, .output_size = 64},
                                 {.zero_debias = false, .window = 8})
                  .ok());
  UpdateStream stream =
      client_->OpenUpdates({.max_buffered_bytes = 8 * 64 * 2 * 4, .form = v1::BATCH_FORM_RAW});
  auto writer = stream.Open("f", 0);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const Matrix<float> one = Matrix<float>::Constant(1, 64, 1);
  for (int step = 1; step <= kSteps; ++step) {
    const auto written = writer->Write({.inputs = one, .outputs_grads = {one}},
                                       {.decay = 1, .weight = 1}, absl::Seconds(30));
    ASSERT_TRUE(written.ok()) << written.status();
  }
  EXPECT_GT(client_->Describe("f")->durable(), kSteps / 2);
}

TEST_F(DataTest, MetricsSayWhatIsSaved) {
  EXPECT_THAT(Get("/livez"), HasSubstr("200 OK"));
  EXPECT_THAT(Get("/readyz"), HasSubstr("200 OK"));
  Step("a");
  Step("b");
  EXPECT_THAT(Get("/metrics"), HasSubstr("\nfisherd_durable_lag_steps 1\n"));
  EXPECT_THAT(Get("/metrics"), HasSubstr("\nfisherd_snapshots_total{outcome=\"ok\"} 0\n"));
  ASSERT_EQ(Ctl({"snapshot"}), ctl::kDone) << err_.str();
  const std::string saved = Get("/metrics");
  EXPECT_THAT(saved, HasSubstr("\nfisherd_durable_lag_steps 0\n"));
  EXPECT_THAT(saved, HasSubstr("\nfisherd_snapshots_total{outcome=\"ok\"} 1\n"));
  EXPECT_THAT(saved, HasSubstr("\nfisherd_snapshot_bytes_total 8\n"));
  EXPECT_THAT(saved, HasSubstr("\nfisherd_snapshot_last_success_timestamp_seconds "));
  EXPECT_THAT(saved, HasSubstr("\nfisherd_disk_writable 1\n"));
  Start(directory_ + "/data");
  EXPECT_THAT(Get("/metrics"), HasSubstr("\nfisherd_recovery_factors{state=\"restored\"} 2\n"));
}

}  // namespace
}  // namespace fisherd
