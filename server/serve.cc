#include "server/serve.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/kernels/target.h"
#include "server/auth/identities.h"
#include "server/auth/tls.h"
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
  sigaddset(&signals, SIGHUP);
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
    if (options.tls.certificate.empty()) {
      LogWarning("what is said at ", address,
                 " can be heard and changed on its way: ", "connections are not encrypted");
    }
    if (options.identities.empty() && options.tls.client_ca.empty()) {
      LogWarning("whoever reaches ", address,
                 " can read and change every factor: ", "nobody is asked who he is");
    }
  }
}

void Reload(Server& server, const CommandLine& line,
            const std::function<absl::StatusOr<CommandLine>()>& read) {
  const auto anew = read();
  absl::Status status = anew.status();
  if (status.ok()) status = server.Reload();
  if (!status.ok()) {
    LogError("nothing was reloaded: ", status.message());
    return;
  }
  SetLogLevel(anew->options.log_level);
  SetLogFormat(anew->options.log_format);
  LogInfo("reloaded");
  if (const auto names = NeedRestart(line, *anew); !names.empty()) {
    LogWarning("only a restart takes over: ", absl::StrJoin(names, ", "));
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

absl::Status CheckConfig(const Options& options) {
  if (!options.identities.empty()) {
    if (auto identities = Identities::Load(options.identities); !identities.ok()) {
      return identities.status();
    }
  }
  if (options.tls.certificate.empty()) return absl::OkStatus();
  return MakeTlsCredentials(options.tls).status();
}

int Serve(const CommandLine& line, const std::function<absl::StatusOr<CommandLine>()>& read) {
  const Options& options = line.options;
  SetLogLevel(options.log_level);
  SetLogFormat(options.log_format);
  const sigset_t signals = BlockSignals();
  const auto server = Server::Start(options);
  if (!server.ok()) {
    LogError(server.status().message());
    return 1;
  }
  LogStart(options, **server);
  int signal;
  while (sigwait(&signals, &signal) == 0 && signal == SIGHUP) Reload(**server, line, read);
  LogInfo("signal ", signal, ": shutting down within ",
          absl::FormatDuration(options.shutdown_grace), "; a second one ends at once");
  std::thread([signals] {
    int second;
    while (sigwait(&signals, &second) == 0 && second == SIGHUP) continue;
    _exit(1);
  }).detach();
  (*server)->Shutdown(options.shutdown_grace);
  LogInfo("shut down");
  return 0;
}

}  // namespace fisherd::server
