// The life of the process: serve until a signal comes.

#ifndef FISHERD_SERVER_SERVE_H_
#define FISHERD_SERVER_SERVE_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/command_line.h"
#include "server/options.h"

namespace fisherd::server {

// Lets the kernels run on the target that the environment names ($FISHERD_TARGET), if it does.
// INVALID_ARGUMENT, with those that there are, if this processor or this build has it not. To be
// called before anything computes.
absl::Status ChooseKernels();

// "kernels: avx2 (of avx2, sse4, scalar)".
std::string DescribeKernels();

// Serves until SIGTERM or SIGINT, then shuts down within options.shutdown_grace; a second signal
// ends the process at once. At SIGHUP, what `read` gives anew is taken over, as far as a running
// server can. Returns its exit status: 0, or 1 if the server cannot start. To be called from main,
// before any other thread begins.
int Serve(const CommandLine& line, const std::function<absl::StatusOr<CommandLine>()>& read);

// Whether a server could start with these, as far as that can be known without starting one.
absl::Status CheckConfig(const Options& options);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SERVE_H_
