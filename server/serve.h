// The life of the process: serve until a signal comes.

#ifndef FISHERD_SERVER_SERVE_H_
#define FISHERD_SERVER_SERVE_H_

#include "server/options.h"

namespace fisherd::server {

// Serves until SIGTERM or SIGINT, then shuts down within options.shutdown_grace; a second signal
// ends the process at once. Returns its exit status: 0, or 1 if the server cannot start. To be
// called from main, before any other thread begins.
int Serve(const Options& options);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SERVE_H_
