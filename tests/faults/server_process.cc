#include "tests/faults/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace fisherd::faults {

bool ServerProcess::Start(const std::vector<std::string>& flags,
                          const std::vector<std::string>& environment) {
  std::filesystem::create_directories(directory_);
  const std::string port_file = directory_ + "/port";
  const std::string log = directory_ + "/log";
  std::filesystem::remove(port_file);
  std::vector<std::string> arguments = {
      FISHERD_FAILPOINTS_PROGRAM, absl::StrCat("--listen=127.0.0.1:", port_),
      "--port-file=" + port_file, "--data-dir=" + directory_ + "/data",
      "--state-budget=256MiB",    "--batch-budget=64MiB"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    for (const std::string& variable : environment) putenv(const_cast<char*>(variable.c_str()));
    execv(argv[0], argv.data());
    _exit(127);
  }
  while (!HasDied()) {
    if (std::ifstream file(port_file); file >> port_) return true;
    absl::SleepFor(absl::Milliseconds(2));
  }
  pid_ = 0;
  return false;
}

bool ServerProcess::HasDied() {
  siginfo_t info;
  info.si_pid = 0;
  return waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
}

void ServerProcess::Kill() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

int ServerProcess::Terminate() {
  kill(pid_, SIGTERM);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool ServerProcess::AwaitDeath(absl::Duration time) {
  const absl::Time deadline = absl::Now() + time;
  while (!HasDied() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  if (!HasDied()) return false;
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = 0;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

std::string ServerProcess::log() const {
  std::stringstream text;
  text << std::ifstream(directory_ + "/log").rdbuf();
  return text.str();
}

}  // namespace fisherd::faults
