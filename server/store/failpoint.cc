#include "server/store/failpoint.h"

#ifdef FISHERD_FAILPOINTS

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "core/mutex.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

[[noreturn]] void Die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// How many visits each name still has to live.
std::map<std::string, int, std::less<>> Planned() {
  std::map<std::string, int, std::less<>> planned;
  const char* text = std::getenv("FISHERD_FAILPOINTS");
  if (text == nullptr || *text == '\0') return planned;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits('=', 1));
    const std::pair<std::string, std::string> action =
        absl::StrSplit(parts.second, absl::MaxSplits('@', 1));
    int visits = 1;
    const bool known =
        std::find(kFailpoints.begin(), kFailpoints.end(), parts.first) != kFailpoints.end();
    if (!known || action.first != "kill" ||
        (!action.second.empty() && !absl::SimpleAtoi(action.second, &visits))) {
      LogError("FISHERD_FAILPOINTS: there is no ", std::string(item));
      std::abort();
    }
    planned[parts.first] = visits;
  }
  return planned;
}

}  // namespace

void VisitFailpoint(std::string_view name) {
  static core::Mutex mutex;
  static std::map<std::string, int, std::less<>> planned = Planned();
  core::MutexLock lock(&mutex);
  if (const auto found = planned.find(name); found != planned.end() && --found->second == 0) Die();
}

}  // namespace fisherd::server

#endif  // FISHERD_FAILPOINTS
