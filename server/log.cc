#include "server/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "absl/time/clock.h"

namespace fisherd::server {
namespace {

std::atomic<LogLevel> lowest_level = LogLevel::kInfo;

absl::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARNING";
    case LogLevel::kError:
      return "ERROR";
  }
  return "";
}

}  // namespace

void SetLogLevel(LogLevel level) { lowest_level.store(level); }

std::string LogLine(absl::Time time, LogLevel level, absl::string_view message) {
  std::string line =
      absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()), " ",
                   NameOf(level), " ", message);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line + "\n";
}

void Log(LogLevel level, absl::string_view message) {
  if (level < lowest_level.load()) return;
  const std::string line = LogLine(absl::Now(), level, message);
  // Nothing can be done about a stderr that takes no more.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace fisherd::server
