// A process that this one started and will stop.

#ifndef FISHERD_TRAINER_SUBPROCESS_H_
#define FISHERD_TRAINER_SUBPROCESS_H_

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fisherd::trainer {

// Ends with its owner: by the destructor, and by the kernel if this process dies. Not thread-safe.
class Subprocess {
 public:
  struct Options {
    int inherited = -1;    // a file descriptor that the process keeps open
    std::string log = "";  // where its output goes, if not where this process's goes
  };
  // Runs the program arguments[0], looked for in PATH if it has no slash. One that cannot be run
  // exits 127.
  static absl::StatusOr<Subprocess> Start(const std::vector<std::string>& arguments,
                                          const Options& options);

  Subprocess(Subprocess&& other);
  Subprocess& operator=(Subprocess&&) = delete;
  ~Subprocess() { Stop(); }

  pid_t pid() const { return pid_; }

  // OK if it exits 0; else INTERNAL, with the exit code or the signal. At most once.
  absl::Status Wait();

  // True if it has ended, of which Wait then tells.
  bool HasEnded() const;

  // Sends SIGTERM and waits, unless it has been waited for.
  void Stop();

  // Sends SIGKILL and waits, unless it has been waited for.
  void Kill();

 private:
  Subprocess(pid_t pid, std::string name) : pid_(pid), name_(std::move(name)) {}

  pid_t pid_;  // −1 once it has been waited for
  std::string name_;
};

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_SUBPROCESS_H_
