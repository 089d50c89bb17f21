// What Linux says of this process.

#ifndef FISHERD_SERVER_PROCESS_STATS_H_
#define FISHERD_SERVER_PROCESS_STATS_H_

#include <cstdint>

namespace fisherd::server {

// 0 where the system does not say.
struct ProcessStats {
  double cpu_seconds = 0;
  double start_time = 0;  // seconds since 1970, by the date
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t threads = 0;
  int64_t open_files = 0;
  int64_t max_files = 0;
};
ProcessStats GetProcessStats();

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_PROCESS_STATS_H_
