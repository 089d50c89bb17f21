#include "tests/bench/core/torch_peer.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {
namespace {

// In the child: becomes Python. Debian's torch belongs to Debian's own python3, which need not be
// the first on the path.
[[noreturn]] void Become(const char* python, int threads, int socket) {
  const std::string count = absl::StrCat(threads);
  for (const char* variable : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}) {
    setenv(variable, count.c_str(), 1);
  }
  setenv("OMP_WAIT_POLICY", "PASSIVE", 1);
  dup2(socket, STDIN_FILENO);
  dup2(socket, STDOUT_FILENO);
  close(STDERR_FILENO);
  const std::string settle = absl::StrCat(SettleSeconds(threads));
  const std::string slice = absl::StrCat(kSliceSeconds);
  execlp(python, python, FISHERD_BENCH_SOURCES "/torch_peer.py", count.c_str(), settle.c_str(),
         slice.c_str(), nullptr);
  _exit(127);
}

}  // namespace

std::unique_ptr<Torch> Torch::Start(int threads) {
  for (const char* python : {"python3", "/usr/bin/python3"}) {
    std::array<int, 2> sockets;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) return nullptr;
    const pid_t child = fork();
    if (child == 0) Become(python, threads, sockets[1]);
    close(sockets[1]);
    std::unique_ptr<Torch> torch(new Torch(child, sockets[0]));
    torch->description_ = torch->ReadLine();
    if (!torch->description_.empty()) return torch;
  }
  return nullptr;
}

Torch::Torch(pid_t child, int socket)
    : child_(child), to_(fdopen(dup(socket), "w")), from_(fdopen(socket, "r")) {}

Torch::~Torch() {
  std::fclose(to_);
  std::fclose(from_);
  waitpid(child_, nullptr, 0);
}

double Torch::Turn(const std::string& contender, const Case& sizes) {
  absl::FPrintF(to_, "%s %d %d %d %d %d\n", contender, sizes.depth(), sizes.inputs, sizes.outputs,
                sizes.bias, sizes.sources);
  std::fflush(to_);
  const std::string answer = ReadLine();
  if (answer.empty()) Die("PyTorch has gone");
  return std::strtod(answer.c_str(), nullptr);
}

std::string Torch::ReadLine() {
  std::string line;
  for (int c = std::getc(from_); c != EOF && c != '\n'; c = std::getc(from_)) line.push_back(c);
  return line;
}

}  // namespace fisherd::bench
