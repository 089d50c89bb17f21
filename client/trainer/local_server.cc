#include "client/trainer/local_server.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fisherd/client.h"

namespace fisherd::trainer {
namespace {

constexpr std::chrono::seconds kServerStart(20);
constexpr std::chrono::milliseconds kLook(5);

}  // namespace

absl::StatusOr<LocalServer> LocalServer::Start(const Options& options) {
  LocalServer server(options);
  std::error_code error;
  std::filesystem::remove_all(options.out + "/fisherd.data", error);
  if (absl::Status status = server.Run(); !status.ok()) return status;
  return server;
}

absl::Status LocalServer::Run() {
  const std::string port_file = options_.out + "/fisherd.port";
  std::filesystem::remove(port_file);
  absl::StatusOr<Subprocess> process = Subprocess::Start(
      {options_.fisherd, "--listen=" + address_, "--port-file=" + port_file,
       "--data-dir=" + options_.out + "/fisherd.data", "--snapshot-interval=100ms"},
      {.log = LogFile(options_)});
  if (!process.ok()) return process.status();
  process_.emplace(*std::move(process));
  const auto deadline = std::chrono::steady_clock::now() + kServerStart;
  while (std::chrono::steady_clock::now() < deadline) {
    std::string port;
    if (std::ifstream file(port_file); std::getline(file, port)) {
      std::filesystem::remove(port_file);
      address_ = "127.0.0.1:" + port;
      return absl::OkStatus();
    }
    if (process_->HasEnded()) {
      return absl::InternalError(
          absl::StrCat(process_->Wait().message(), "; see ", LogFile(options_)));
    }
    std::this_thread::sleep_for(kLook);
  }
  return absl::DeadlineExceededError(
      absl::StrCat(options_.fisherd, " did not say its port; see ", LogFile(options_)));
}

absl::Status LocalServer::CrashAndRestart() {
  process_->Kill();
  process_.reset();
  return Run();
}

absl::StatusOr<std::optional<CrashReport>> CrashAt(LocalServer& server, const std::string& factor,
                                                   int64_t step,
                                                   const std::function<bool()>& over) {
  absl::StatusOr<Client> client = Client::Connect(server.address());
  if (!client.ok()) return client.status();
  while (!over()) {
    const absl::StatusOr<v1::FactorInfo> info = client->Describe(factor);
    if (info.ok() && info->next() > step) {
      const CrashReport report = {.step = info->next() - 1, .durable = info->durable()};
      if (absl::Status status = server.CrashAndRestart(); !status.ok()) return status;
      return report;
    }
    std::this_thread::sleep_for(kLook);
  }
  return std::nullopt;
}

}  // namespace fisherd::trainer
