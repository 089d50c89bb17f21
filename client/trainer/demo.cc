#include "client/trainer/demo.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/trainer/local_server.h"
#include "client/trainer/natural_gradient.h"
#include "client/trainer/subprocess.h"
#include "client/trainer/training.h"

namespace fisherd::trainer {
namespace {

constexpr char kHeading[] = R"(fisherd demo

Two trainer processes (towers) train one network, 64-128-64-10 with biases and tanh, on handwritten
digits: 1,408 to train, 389 to test, 128 per step, half of them in each tower. Five methods begin at
the same parameters and see the same batches. For the last two, each tower streams its half of every
layer's inputs and sampled-label gradients to fisherd, and multiplies its gradient by the served
(fisher + damping)^-1 or ^-1/2. All settings were tuned by 12 trials each (fisherd-trainer tune).
Half-way through the fourth method the server is killed (kill -9) and started again on its data.

)";

constexpr char kTuneHeading[] = R"(fisherd-trainer tune

Every method gets twelve trials with three seeds each, other seeds than the demo's. The best has the
least training loss after the last epoch, in its worst seed; the test set has no say.
)";

absl::StatusOr<Subprocess> StartTower(const Options& options, const std::string& server, int tower,
                                      int link) {
  std::vector<std::string> arguments = {
      std::filesystem::read_symlink("/proc/self/exe").string(),
      "train",
      absl::StrCat("--tower=", tower),
      absl::StrCat("--link=", link),
      "--server=" + server,
      "--data=" + options.data,
      "--out=" + options.out,
      absl::StrCat("--epochs=", options.epochs),
      absl::StrCat("--seed=", options.seed),
  };
  if (options.command == "tune") arguments.push_back("--tune");
  return Subprocess::Start(arguments, {.inherited = link});
}

absl::StatusOr<std::vector<Subprocess>> StartTowers(const Options& options,
                                                    const std::string& server) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::ErrnoToStatus(errno, "socketpair");
  }
  std::vector<Subprocess> towers;
  absl::Status status;
  for (int tower : {0, 1}) {
    absl::StatusOr<Subprocess> process = StartTower(options, server, tower, sockets[tower]);
    status.Update(process.status());
    if (process.ok()) towers.push_back(*std::move(process));
  }
  // A tower notices the other's end by its socket, if nobody else holds that open.
  for (int socket : sockets) close(socket);
  if (!status.ok()) return status;
  return towers;
}

// Half-way through the first method that uses it, while the towers run.
absl::Status CrashHalfWay(const Options& options, const std::vector<Subprocess>& towers,
                          LocalServer& server) {
  const std::string factor = FactorName({.exponent = -1}, 0);
  const int64_t half = std::max(1, options.epochs * (kTrainSize / kBatch) / 2);
  const auto over = [&] {
    return std::ranges::any_of(towers, [](const Subprocess& tower) { return tower.HasEnded(); });
  };
  const absl::StatusOr<std::optional<CrashReport>> crash = CrashAt(server, factor, half, over);
  if (!crash.ok()) return crash.status();
  if (!crash->has_value()) return absl::InternalError("the towers ended before the crash");
  absl::PrintF(
      "\n  The server was killed (kill -9) after step %d of %s, when a snapshot had\n"
      "  step %d, and started again on its data. The trainers send it what it has lost, and go "
      "on.\n\n",
      (*crash)->step, factor, (*crash)->durable);
  std::fflush(stdout);
  return absl::OkStatus();
}

// Runs both towers to their end; crashes the server in between, if it is given.
absl::Status RunTowers(const Options& options, const std::string& address, LocalServer* to_crash) {
  absl::StatusOr<std::vector<Subprocess>> towers = StartTowers(options, address);
  if (!towers.ok()) return towers.status();
  absl::Status status;
  if (to_crash != nullptr) status = CrashHalfWay(options, *towers, *to_crash);
  for (Subprocess& tower : *towers) {
    if (!status.ok()) tower.Stop();
    if (tower.pid() >= 0) status.Update(tower.Wait());
  }
  return status;
}

void WaitForInterrupt() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  int signal;
  sigwait(&signals, &signal);
}

// fisherctl is built beside this program.
std::string Fisherctl() {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string beside = self.parent_path() / "fisherctl";
  if (!std::filesystem::exists(beside)) return "fisherctl";
  const std::string relative = std::filesystem::proximate(beside);
  return relative.starts_with("..") ? beside : relative;
}

void PrintWhereToLook(const std::string& address, bool running) {
  absl::PrintF("\nWhere to look next\n\n");
  const std::string fisherctl = Fisherctl();
  if (running) absl::PrintF("  export FISHERD_SERVER=%s\n", address);
  for (const char* command :
       {"list", "describe demo/matpower-1/layer0", "get demo/matpower-1/layer2",
        "matpower --exponent=-0.5 --damping=demo/matpower-0.5 demo/matpower-0.5/layer2"}) {
    if (running) absl::PrintF("  %s %s\n", fisherctl, command);
  }
  if (!running)
    absl::PrintF("  ./dev demo --keep: the same, and leaves the server to %s\n", fisherctl);
  absl::PrintF(
      "  client/trainer/natural_gradient.cc: all that a trainer has to do with fisherd\n"
      "  docs/architecture.md: the way of one batch through the server\n");
}

}  // namespace

absl::Status RunDemo(const Options& options) {
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) return absl::UnavailableError(absl::StrCat(options.out, ": ", error.message()));
  std::optional<LocalServer> server;
  if (options.server.empty()) {
    absl::StatusOr<LocalServer> started = LocalServer::Start(options);
    if (!started.ok()) return started.status();
    server.emplace(*std::move(started));
  }
  const std::string address = server ? server->address() : options.server;
  const bool demo = options.command == "demo";
  absl::PrintF("%s", demo ? kHeading : kTuneHeading);
  std::fflush(stdout);
  absl::Status status = RunTowers(options, address, server && demo ? &*server : nullptr);
  if (!status.ok() && server) {
    return absl::Status(
        status.code(),
        absl::StrCat(status.message(), "; server's log: ", LocalServer::LogFile(options)));
  }
  if (!status.ok() || !demo) return status;
  PrintWhereToLook(address, !server || options.keep);
  if (server && options.keep) {
    absl::PrintF("\nThe server runs until Ctrl-C.\n");
    std::fflush(stdout);
    WaitForInterrupt();
  }
  return absl::OkStatus();
}

}  // namespace fisherd::trainer
