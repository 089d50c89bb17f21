#include "server/server.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/backend_cpu.h"
#include "core/devices.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/shared_memory_door.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

Options TestOptions() {
  Options options;
  options.listen = {"127.0.0.1:0"};
  options.state_budget = options.batch_budget = 1 << 20;
  return options;
}

TEST(ServerTest, TakesAFreePortAndWritesItDown) {
  Options options = TestOptions();
  options.port_file = TestPath();
  std::filesystem::remove(options.port_file);
  const auto server = Server::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
  int port = 0;
  std::ifstream(options.port_file) >> port;
  EXPECT_EQ(port, (*server)->port());
  EXPECT_FALSE(std::filesystem::exists(options.port_file + ".tmp"));
  EXPECT_EQ((*server)->backend_name(), core::BackendCpu(nullptr).name());
}

TEST(ServerTest, DoesNotStartWithoutTheGpuThatItShallHave) {
  if (!core::FindDevices({}).found.empty()) GTEST_SKIP() << "there is one";
  Options options = TestOptions();
  options.backend = core::BackendChoice::kCuda;
  const auto server = Server::Start(options);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("backend is cuda: "));
}

TEST(ServerTest, APortThatIsTakenIsAnError) {
  const auto first = Server::Start(TestOptions());
  ASSERT_TRUE(first.ok());
  Options options = TestOptions();
  options.listen = {absl::StrCat("127.0.0.1:", (*first)->port())};
  const auto second = Server::Start(options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(options.listen[0]));
}

TEST(ServerTest, ServesAtASocketBesideAPort) {
  const std::string path = TestPath();
  Options options = TestOptions();
  options.listen.insert(options.listen.begin(), "unix:" + path);
  {
    const auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_GT((*server)->port(), 1);
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0660));
    options.listen = {"unix:" + path};
    EXPECT_THAT(std::string(Server::Start(options).status().message()),
                HasSubstr("cannot listen at unix:" + path + ": the address is taken"));
    const auto stub = v1::FactorService::NewStub(
        grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::ListFactorsResponse response;
    EXPECT_TRUE(stub->ListFactors(&context, {}, &response).ok());
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  const auto again = Server::Start(options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->port(), 0);
}

// The initial metadata of an update stream.
std::string AnnouncementOf(Server& server) {
  const auto stub = v1::FactorService::NewStub(server.InProcessChannel());
  grpc::ClientContext context;
  const auto stream = stub->Update(&context);
  stream->WritesDone();
  v1::UpdateResponse response;
  EXPECT_FALSE(stream->Read(&response));
  const auto& metadata = context.GetServerInitialMetadata();
  const auto found = metadata.find(kSharedMemoryKey);
  std::string announcement;
  if (found != metadata.end()) announcement.assign(found->second.data(), found->second.size());
  EXPECT_TRUE(stream->Finish().ok());
  return announcement;
}

TEST(ServerTest, TellsStreamsWhereMemoryIsShared) {
  const std::string path = TestPath();
  Options options = TestOptions();
  EXPECT_EQ(AnnouncementOf(**Server::Start(options)), "");
  options.shared_memory = path;
  options.shared_memory_limit = 1 << 20;
  {
    const auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_EQ(AnnouncementOf(**server).substr(16), path);
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0660));
    EXPECT_THAT(std::string(Server::Start(options).status().message()),
                HasSubstr("the address is taken"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ServerTest, APortFileThatCannotBeWrittenIsAnError) {
  Options options = TestOptions();
  options.port_file = testing::TempDir() + "/no such folder/port";
  const auto server = Server::Start(options);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr(options.port_file));
}

TEST(ServerTest, ShutsDownOnceAndForAll) {
  auto server = Server::Start(TestOptions());
  ASSERT_TRUE(server.ok());
  (*server)->Shutdown(absl::Hours(1));  // nothing is under way: it does not take that long
  (*server)->Shutdown(absl::Hours(1));
}

TEST(ServerTest, LaterServersHaveHigherNumbers) {
  const auto incarnation = [] {
    const auto server = Server::Start(TestOptions());
    EXPECT_TRUE(server.ok());
    const auto stub = v1::FactorService::NewStub((*server)->InProcessChannel());
    grpc::ClientContext context;
    v1::CreateFactorRequest request;
    request.set_name("f");
    request.mutable_spec()->mutable_fully_connected_diagonal()->set_input_size(1);
    request.mutable_spec()->mutable_fully_connected_diagonal()->set_output_size(1);
    v1::CreateFactorResponse response;
    EXPECT_TRUE(stub->CreateFactor(&context, request, &response).ok());
    return response.factor().version().incarnation();
  };
  const uint64_t first = incarnation();
  EXPECT_GT(first, 0);
  EXPECT_GT(incarnation(), first);
}

}  // namespace
}  // namespace fisherd::server
