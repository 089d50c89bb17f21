// Named places in the store where tests let it fail. In other builds there is nothing of them.
//
// $FISHERD_FAILPOINTS is a list, by commas, of NAME=kill or NAME=kill@N: at its N-th visit (the
// first) the process dies as by kill -9. A name that there is not is the end of the process.

#ifndef FISHERD_SERVER_STORE_FAILPOINT_H_
#define FISHERD_SERVER_STORE_FAILPOINT_H_

#include <array>
#include <string_view>

namespace fisherd::server {

// Before and after everything that changes a disk, or tells of it.
inline constexpr std::array<std::string_view, 22> kFailpoints = {
    "meta.write",       "meta.written",       "life.write",      "life.written",
    "outcome.write",    "outcome.written",    "log.write",       "log.written",
    "snapshot.begin",   "file.created",       "file.header",     "file.data",
    "file.written",     "file.synced",        "file.renamed",    "file.directory_synced",
    "generation.write", "generation.written", "generation.told", "file.remove",
    "file.removed",     "shutdown.snapshot",
};

#ifdef FISHERD_FAILPOINTS
void VisitFailpoint(std::string_view name);
#else
inline void VisitFailpoint(std::string_view) {}
#endif

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_FAILPOINT_H_
