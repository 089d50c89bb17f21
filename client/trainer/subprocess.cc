#include "client/trainer/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fisherd::trainer {

absl::StatusOr<Subprocess> Subprocess::Start(const std::vector<std::string>& arguments,
                                             const Options& options) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot fork ", arguments[0]));
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);  // it died before the line above
    if (options.inherited >= 0) fcntl(options.inherited, F_SETFD, 0);
    if (!options.log.empty()) {
      const int log = open(options.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
      if (log < 0) _exit(1);
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
    }
    execvp(argv[0], argv.data());
    _exit(127);
  }
  return Subprocess(pid, arguments[0]);
}

Subprocess::Subprocess(Subprocess&& other)
    : pid_(std::exchange(other.pid_, -1)), name_(std::move(other.name_)) {}

absl::Status Subprocess::Wait() {
  int status;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  const pid_t pid = std::exchange(pid_, -1);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(name_, " (process ", pid, ") ",
                   WIFEXITED(status) ? "exited with code " : "was ended by signal ",
                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
}

bool Subprocess::HasEnded() const {
  siginfo_t info;
  info.si_pid = 0;
  return waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
}

void Subprocess::Stop() {
  if (pid_ < 0) return;
  kill(pid_, SIGTERM);
  Wait().IgnoreError();
}

void Subprocess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  Wait().IgnoreError();
}

}  // namespace fisherd::trainer
