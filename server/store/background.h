// Threads that save, beside those that compute.

#ifndef FISHERD_SERVER_STORE_BACKGROUND_H_
#define FISHERD_SERVER_STORE_BACKGROUND_H_

#include <sys/resource.h>
#include <unistd.h>

namespace fisherd::server {

// Steps and reads come before what this thread does from now on.
inline void SetBackgroundPriority() {
  constexpr int kNice = 10;
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
}

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_BACKGROUND_H_
