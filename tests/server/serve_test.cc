#include "server/serve.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/server.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

absl::StatusOr<CommandLine> Unread() { return absl::UnavailableError("nobody reads it again"); }

// Each runs Serve in a process of its own.
class ServeDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    options_.listen = {"127.0.0.1:0"};
    options_.state_budget = options_.batch_budget = 1 << 20;
    options_.port_file = path_ + ".port";
    std::filesystem::remove(options_.port_file);
  }

  // Runs `then` beside it once it serves.
  [[noreturn]] void ServeAnd(
      std::function<void()> then,
      const std::function<absl::StatusOr<CommandLine>()>& read = Unread) const {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    std::thread([this, then = std::move(then)] {
      while (!std::filesystem::exists(options_.port_file)) absl::SleepFor(absl::Milliseconds(1));
      then();
    }).detach();
    _exit(Serve({.options = options_, .written = {}}, read));
  }
  // Sends itself `signal` once it serves.
  [[noreturn]] void ServeUntil(int signal) const {
    ServeAnd([signal] { kill(getpid(), signal); });
  }

  // Of the process that the death test began in: its child makes the files.
  const std::string path_ = [] {
    setenv("FISHERD_TEST_PATH", TestPath().c_str(), 0);
    return std::getenv("FISHERD_TEST_PATH");
  }();
  Options options_;
};

TEST_F(ServeDeathTest, SigtermEndsItWell) {
  EXPECT_EXIT(ServeUntil(SIGTERM), testing::ExitedWithCode(0),
              "fisherd .* serves at 127.0.0.1:0, port .*shutting down within 10s.*shut down");
}

TEST_F(ServeDeathTest, SigintEndsItWell) {
  EXPECT_EXIT(ServeUntil(SIGINT), testing::ExitedWithCode(0), "signal 2: shutting down");
}

TEST_F(ServeDeathTest, ListeningToTheWorldIsWarnedOf) {
  options_.listen = {"unix:" + path_, "0.0.0.0:0"};
  EXPECT_EXIT(ServeUntil(SIGTERM), testing::ExitedWithCode(0),
              "serves at unix:.*, 0.0.0.0:0, port .*"
              "WARNING what is said at 0.0.0.0:0 can be heard.*"
              "WARNING whoever reaches 0.0.0.0:0 can read and change every factor");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// SIGHUP takes over what a running server can, and says what it cannot.
TEST_F(ServeDeathTest, SighupReadsAgain) {
  const auto signals = [this] {
    kill(getpid(), SIGHUP);
    while (!std::filesystem::exists(path_ + ".reloaded")) absl::SleepFor(absl::Milliseconds(1));
    kill(getpid(), SIGHUP);
    while (std::filesystem::exists(path_ + ".reloaded")) absl::SleepFor(absl::Milliseconds(1));
    kill(getpid(), SIGTERM);
  };
  const auto read = [this]() -> absl::StatusOr<CommandLine> {
    if (std::filesystem::exists(path_ + ".reloaded")) {
      std::filesystem::remove(path_ + ".reloaded");
      return absl::InvalidArgumentError("a bad line");
    }
    std::ofstream(path_ + ".reloaded") << "yes";
    CommandLine anew{.options = options_, .written = {{"window", "7"}}};
    anew.options.log_format = LogFormat::kJson;
    return anew;
  };
  EXPECT_EXIT(ServeAnd(signals, read), testing::ExitedWithCode(0),
              "\"message\":\"reloaded\"}.*only a restart takes over: window.*"
              "nothing was reloaded: a bad line.*shut down");
}

TEST_F(ServeDeathTest, APortFileNeedsAPort) {
  options_.listen = {"unix:" + path_};
  EXPECT_EXIT(_exit(Serve({.options = options_, .written = {}}, Unread)),
              testing::ExitedWithCode(1), "ERROR there is no port for the port file");
}

TEST_F(ServeDeathTest, WhatCannotServeSaysWhy) {
  options_.port_file = "/no such folder/port";
  EXPECT_EXIT(_exit(Serve({.options = options_, .written = {}}, Unread)),
              testing::ExitedWithCode(1), "ERROR cannot write the port file /no such folder/port");
}

// The stream of a client that never goes holds the first shutdown up for its grace.
TEST_F(ServeDeathTest, ASecondSignalEndsItAtOnce) {
  options_.shutdown_grace = absl::Hours(1);
  const auto then = [this] {
    int port = 0;
    std::ifstream(options_.port_file) >> port;
    const auto stub = v1::FactorService::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    const auto stream = stub->Multiply(&context);
    // In flight for the server once its initial metadata is back, so wait for a first answer.
    v1::CreateFactorRequest create;
    create.set_name("f");
    create.mutable_spec()->mutable_fully_connected_diagonal()->set_input_size(1);
    create.mutable_spec()->mutable_fully_connected_diagonal()->set_output_size(1);
    v1::CreateFactorResponse created;
    grpc::ClientContext create_context;
    stub->CreateFactor(&create_context, create, &created);
    v1::MultiplyRequest request;
    request.mutable_header()->set_factor("f");
    request.mutable_header()->mutable_operator_()->mutable_covariance();
    stream->Write(request);
    v1::MultiplyResponse response;
    stream->Read(&response);
    kill(getpid(), SIGTERM);
    while (true) {
      absl::SleepFor(absl::Milliseconds(20));
      kill(getpid(), SIGTERM);
    }
  };
  EXPECT_EXIT(ServeAnd(then), testing::ExitedWithCode(1), "a second one ends at once");
}

}  // namespace
}  // namespace fisherd::server
