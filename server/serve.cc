#include "server/serve.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/kernels/target.h"
#include "server/log.h"
#include "server/server.h"
#include "version.h"

namespace fisherd::server {
namespace {

// All threads inherit the mask, so that signals come to sigwait alone and no handler runs.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void LogStart(const Options& options, const Server& server) {
  const std::string port = server.port() == 0 ? "" : absl::StrCat(", port ", server.port());
  LogInfo("fisherd ", kVersion, " serves at ", absl::StrJoin(options.listen, ", "), port, "; ",
          server.backend_name(), ", compute threads: ", options.compute_threads,
          ", state budget: ", FormatBytes(options.state_budget),
          ", batch budget: ", FormatBytes(options.batch_budget),
          options.shared_memory.empty() ? "" : ", shared memory at ", options.shared_memory,
          server.http_port() == 0 ? "" : absl::StrCat(", HTTP port ", server.http_port()));
  for (const std::string& address : options.listen) {
    if (IsLocal(address)) continue;
    LogWarning("whoever reaches ", address, " can read and change every factor: ",
               "connections are neither encrypted nor authenticated");
  }
}

}  // namespace

absl::Status ChooseKernels() {
  const char* target = std::getenv(kernels::kTargetVariable);
  if (target == nullptr || kernels::ForceTarget(target)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(kernels::kTargetVariable, "=", target, ": expected one of ",
                   absl::StrJoin(kernels::AvailableTargets(), ", "), ", or none"));
}

std::string DescribeKernels() {
  return absl::StrCat("kernels: ", kernels::CurrentTarget(), " (of ",
                      absl::StrJoin(kernels::AvailableTargets(), ", "), ")");
}

int Serve(const Options& options) {
  SetLogLevel(options.log_level);
  const sigset_t signals = BlockSignals();
  const auto server = Server::Start(options);
  if (!server.ok()) {
    LogError(server.status().message());
    return 1;
  }
  LogStart(options, **server);
  int signal;
  sigwait(&signals, &signal);
  LogInfo("signal ", signal, ": shutting down within ",
          absl::FormatDuration(options.shutdown_grace), "; a second one ends at once");
  std::thread([signals] {
    int second;
    sigwait(&signals, &second);
    _exit(1);
  }).detach();
  (*server)->Shutdown(options.shutdown_grace);
  LogInfo("shut down");
  return 0;
}

}  // namespace fisherd::server
