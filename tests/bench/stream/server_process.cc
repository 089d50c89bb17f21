#include "tests/bench/stream/server_process.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/bench/core/die.h"

namespace fisherd::bench {
namespace {

constexpr std::chrono::seconds kStartTimeout{20};

std::string NewFolder() {
  std::string path = (std::filesystem::temp_directory_path() / "fisherd_bench_XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) Die("cannot make " + path);
  return path;
}

trainer::Subprocess StartProcess(std::vector<std::string> command, const std::string& folder,
                                 Transport transport) {
  // It listens at both: the port file is how it says that it is ready.
  command.push_back(absl::StrCat("--listen=127.0.0.1:0,unix:", folder, "/socket"));
  command.push_back(absl::StrCat("--port-file=", folder, "/port"));
  if (transport == Transport::kShared) {
    command.push_back(absl::StrCat("--shared-memory=", folder, "/memory"));
  }
  auto process = trainer::Subprocess::Start(command, {.log = folder + "/log"});
  if (!process.ok()) Die(std::string(process.status().message()));
  return *std::move(process);
}

}  // namespace

ServerProcess::ServerProcess(std::vector<std::string> command, Transport transport)
    : folder_(NewFolder()), process_(StartProcess(std::move(command), folder_, transport)) {
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  std::string port;
  while (!(std::ifstream(folder_ + "/port") >> port)) {
    if (process_.HasEnded() || std::chrono::steady_clock::now() > deadline) {
      std::ifstream log(folder_ + "/log");
      Die(absl::StrCat("the server does not start: ",
                       std::string(std::istreambuf_iterator<char>(log), {})));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  address_ = transport == Transport::kUnix ? absl::StrCat("unix:", folder_, "/socket")
                                           : absl::StrCat("127.0.0.1:", port);
}

ServerProcess::~ServerProcess() {
  process_.Stop();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

double ServerProcess::cpu_seconds() const {
  clockid_t clock;
  timespec time;
  if (clock_getcpuclockid(process_.pid(), &clock) != 0 || clock_gettime(clock, &time) != 0) {
    Die("the server has ended");
  }
  return static_cast<double>(time.tv_sec) + time.tv_nsec * 1e-9;
}

int64_t ServerProcess::StatusBytes(const std::string& field) const {
  std::ifstream status(absl::StrCat("/proc/", process_.pid(), "/status"));
  for (std::string word; status >> word;) {
    int64_t kibibytes = 0;
    if (word == field && status >> kibibytes) return kibibytes << 10;
  }
  Die("the server has ended");
}

}  // namespace fisherd::bench
