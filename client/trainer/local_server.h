// The demo's own fisherd.

#ifndef FISHERD_TRAINER_LOCAL_SERVER_H_
#define FISHERD_TRAINER_LOCAL_SERVER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/trainer/options.h"
#include "client/trainer/subprocess.h"

namespace fisherd::trainer {

// A process (of the thread that starts it) on a data directory of its own, which is new. Ends with
// its owner. Not thread-safe.
class LocalServer {
 public:
  // On a port of its own choice; waits until it listens.
  static absl::StatusOr<LocalServer> Start(const Options& options);

  // Kills it as kill -9 does, and starts it again on its data and its port.
  absl::Status CrashAndRestart();

  const std::string& address() const { return address_; }
  static std::string LogFile(const Options& options) { return options.out + "/fisherd.log"; }

 private:
  explicit LocalServer(const Options& options) : options_(options) {}
  absl::Status Run();

  Options options_;
  std::string address_ = "127.0.0.1:0";
  std::optional<Subprocess> process_;
};

// What a factor's crash looked like, for the report.
struct CrashReport {
  int64_t step = 0;     // the last that had ended
  int64_t durable = 0;  // the last that a snapshot had covered
};

// Waits until `step` of the factor has ended, then crashes the server; returns when it serves
// again. Without a report if it is `over` before that.
absl::StatusOr<std::optional<CrashReport>> CrashAt(LocalServer& server, const std::string& factor,
                                                   int64_t step, const std::function<bool()>& over);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_LOCAL_SERVER_H_
