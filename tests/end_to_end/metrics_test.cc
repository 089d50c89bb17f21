// Every metric that deploy/metrics.txt names is served, and no other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/time/clock.h"
#include "fisherd/client.h"
#include "server/server.h"
#include "tests/http_get.h"
#include "tests/test_path.h"

namespace fisherd {
namespace {

// Name → type, of a text in Prometheus' format.
std::map<std::string, std::string> FamiliesOf(const std::string& metrics) {
  std::map<std::string, std::string> families;
  std::istringstream text(metrics);
  std::string line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::string hash, kind, name, type;
    words >> hash >> kind >> name >> type;
    if (hash == "#" && kind == "TYPE") families[name] = type;
  }
  return families;
}

TEST(MetricsNamesTest, AreThoseThatAreDocumented) {
  const std::string directory = TestPath();
  std::filesystem::create_directories(directory);
  const std::string certificate = directory + "/a.pem";
  const std::string key = directory + "/a.key";
  ASSERT_EQ(std::system(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                         "-days 2 -subj /CN=a -addext subjectAltName=IP:127.0.0.1 -keyout " +
                         key + " -out " + certificate + " 2>/dev/null")
                            .c_str()),
            0);
  server::Options options;
  options.listen = {"127.0.0.1:0"};
  options.http = "127.0.0.1:0";
  options.state_budget = options.batch_budget = 64 << 20;
  options.data_dir = directory + "/data";
  options.disk_reserve = 1;
  options.snapshot_interval = absl::Milliseconds(10);
  options.tls.certificate = certificate;
  options.tls.key = key;
  options.metrics_factor_prefixes = {"f"};
  auto server = server::Server::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();

  std::stringstream authority;
  authority << std::ifstream(certificate).rdbuf();
  auto client = Client::Connect("127.0.0.1:" + std::to_string((*server)->port()),
                                {.tls = Tls{.root_certificates = authority.str()}});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->CreateFactor("f", {.input_size = 1, .output_size = 1}).ok());
  ASSERT_TRUE(client->SetDamping("d", 1).ok());
  ASSERT_TRUE(client->Register("f", Matpower(-1, "d"), {}).ok());
  UpdateStream stream = client->OpenUpdates();
  auto writer = stream.Open("f", 0, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const Matrix<float> one = Matrix<float>::Constant(1, 1, 1);
  const auto step = writer->Write({.inputs = one, .outputs_grads = {one}}, {.decay = 0.5});
  ASSERT_TRUE(step.ok() && writer->WaitEnded(*step).ok());
  const auto bad = writer->Write({.inputs = one, .outputs_grads = {one}}, {.decay = 2});
  EXPECT_FALSE(bad.ok() && writer->WaitEnded(*bad).ok());
  const auto get = [&] { return FamiliesOf(HttpGet((*server)->http_port(), "/metrics")); };
  while (!get().contains("fisherd_snapshot_last_success_timestamp_seconds")) {
    absl::SleepFor(absl::Milliseconds(5));
  }

  const auto served = get();
  std::map<std::string, std::string> documented;
  std::ifstream names(FISHERD_SOURCE_DIR "/deploy/metrics.txt");
  for (std::string name, type; names >> name >> type;) documented[name] = type;
  // Those of GPUs are where there are some; MetricsTest.ShowsDevices has them all.
  std::erase_if(documented,
                [](const auto& metric) { return metric.first.starts_with("fisherd_device_"); });
  EXPECT_THAT(served, testing::ContainerEq(documented));
  std::filesystem::remove_all(directory);
}

// The number of a sample.
double SampleOf(const std::string& metrics, const std::string& sample) {
  const size_t place = metrics.find("\n" + sample + " ");
  return place == std::string::npos ? -1 : std::stod(metrics.substr(place + sample.size() + 2));
}

TEST(CallCountsTest, StreamsCountThemselvesAndOthersAreCounted) {
  server::Options options;
  options.listen = {"127.0.0.1:0"};
  options.http = "127.0.0.1:0";
  options.state_budget = options.batch_budget = 1 << 20;
  auto server = server::Server::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  auto client = Client::Connect("127.0.0.1:" + std::to_string((*server)->port()));
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->CreateFactor("f", {.input_size = 1, .output_size = 1}).ok());
  EXPECT_FALSE(client->Describe("g").ok());
  const auto sample = [&](const std::string& name, const std::string& type,
                          const std::string& method, const std::string& code = "") {
    return SampleOf(HttpGet((*server)->http_port(), "/metrics"),
                    "grpc_server_" + name + "{grpc_type=\"" + type +
                        "\",grpc_service=\"fisherd.v1.FactorService\",grpc_method=\"" + method +
                        "\"" + (code.empty() ? "" : ",grpc_code=\"" + code + "\"") + "}");
  };
  EXPECT_EQ(sample("started_total", "unary", "DescribeFactor"), 1);
  EXPECT_EQ(sample("handled_total", "unary", "DescribeFactor", "NOT_FOUND"), 1);
  {
    UpdateStream stream = client->OpenUpdates();
    auto writer = stream.Open("f", 0, {});
    ASSERT_TRUE(writer.ok()) << writer.status();
    const Matrix<float> one = Matrix<float>::Constant(1, 1, 1);
    for (int k = 0; k < 5; ++k) {
      const auto step = writer->Write({.inputs = one, .outputs_grads = {one}}, {.decay = 0.5});
      ASSERT_TRUE(step.ok() && writer->WaitEnded(*step).ok());
    }
    EXPECT_EQ(sample("started_total", "bidi_stream", "Update"), 1);
    EXPECT_EQ(sample("handled_total", "bidi_stream", "Update", "OK"), -1);
  }
  // Those of the client's stream: its opening and five batches; an answer and an acknowledgement of
  // each.
  EXPECT_GE(sample("msg_received_total", "bidi_stream", "Update"), 6);
  EXPECT_GE(sample("msg_sent_total", "bidi_stream", "Update"), 6);
  const auto ended = [&] {
    const double ok = sample("handled_total", "bidi_stream", "Update", "OK");
    return ok == 1 || sample("handled_total", "bidi_stream", "Update", "CANCELLED") == 1;
  };
  while (!ended()) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(sample("handling_seconds_count", "bidi_stream", "Update"), 1);
}

}  // namespace
}  // namespace fisherd
