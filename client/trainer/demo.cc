#include "client/trainer/demo.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/trainer/subprocess.h"

namespace fisherd::trainer {
namespace {

constexpr std::chrono::seconds kServerStart(20);

constexpr char kHeading[] = R"(fisherd demo

Two trainer processes (towers) train one network, 64-128-64-10 with biases and tanh, on handwritten
digits: 1,408 to train, 389 to test, 128 per step, half of them in each tower. Five methods begin at
the same parameters and see the same batches. For the last two, each tower streams its half of every
layer's inputs and sampled-label gradients to fisherd, and multiplies its gradient by the served
(fisher + damping)^-1 or ^-1/2. All settings were tuned by 12 trials each (fisherd-trainer tune).

)";

constexpr char kTuneHeading[] = R"(fisherd-trainer tune

Every method gets twelve trials with three seeds each, other seeds than the demo's. The best has the
least training loss after the last epoch, in its worst seed; the test set has no say.
)";

struct Server {
  Subprocess process;
  std::string address;
};

std::string LogFile(const Options& options) { return options.out + "/fisherd.log"; }

// Starts fisherd on a port of its own choice and waits until it listens.
absl::StatusOr<Server> StartServer(const Options& options) {
  const std::string port_file = options.out + "/fisherd.port";
  const std::string log = LogFile(options);
  std::filesystem::remove(port_file);
  absl::StatusOr<Subprocess> process = Subprocess::Start(
      {options.fisherd, "--listen=127.0.0.1:0", "--port-file=" + port_file}, {.log = log});
  if (!process.ok()) return process.status();
  const auto deadline = std::chrono::steady_clock::now() + kServerStart;
  while (std::chrono::steady_clock::now() < deadline) {
    std::string port;
    if (std::ifstream file(port_file); std::getline(file, port)) {
      std::filesystem::remove(port_file);
      return Server{*std::move(process), "127.0.0.1:" + port};
    }
    if (process->HasEnded()) {
      return absl::InternalError(absl::StrCat(process->Wait().message(), "; see ", log));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return absl::DeadlineExceededError(
      absl::StrCat(options.fisherd, " did not say its port; see ", log));
}

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

// Runs both towers to their end.
absl::Status RunTowers(const Options& options, const std::string& server) {
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
  for (Subprocess& tower : towers) status.Update(tower.Wait());
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
  std::optional<Server> server;
  if (options.server.empty()) {
    absl::StatusOr<Server> started = StartServer(options);
    if (!started.ok()) return started.status();
    server.emplace(*std::move(started));
  }
  const std::string address = server ? server->address : options.server;
  const bool demo = options.command == "demo";
  absl::PrintF("%s", demo ? kHeading : kTuneHeading);
  std::fflush(stdout);
  absl::Status status = RunTowers(options, address);
  if (!status.ok() && server) {
    return absl::Status(status.code(),
                        absl::StrCat(status.message(), "; server's log: ", LogFile(options)));
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
