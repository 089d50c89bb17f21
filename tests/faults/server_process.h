// A fisherd of its own process, on a data directory, that can be killed.

#ifndef FISHERD_TESTS_FAULTS_SERVER_PROCESS_H_
#define FISHERD_TESTS_FAULTS_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace fisherd::faults {

// Not thread-safe, but for port(). Ends with its owner.
class ServerProcess {
 public:
  // `directory` is made; it is the test's to remove.
  explicit ServerProcess(std::string directory) : directory_(std::move(directory)) {}
  ~ServerProcess() { Kill(); }

  // Starts it, with flags beside those for the address and the directory, and `environment` as
  // NAME=VALUE. On the port that it had before, if it had one. True once it serves; false if it has
  // died before.
  bool Start(const std::vector<std::string>& flags,
             const std::vector<std::string>& environment = {});
  bool is_running() const { return pid_ != 0; }
  // As kill -9; waits until it is dead. No effect if it is not running.
  void Kill();
  // SIGTERM, and waits. Its exit status; −1 if a signal has ended it.
  int Terminate();
  // It has died of SIGKILL by itself, within that time.
  bool AwaitDeath(absl::Duration time);

  int port() const { return port_; }
  std::string log() const;

 private:
  bool HasDied();

  const std::string directory_;
  int port_ = 0;
  pid_t pid_ = 0;  // 0: not running
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_SERVER_PROCESS_H_
