#include "server/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "absl/time/clock.h"
#include "server/json.h"

namespace fisherd::server {
namespace {

std::atomic<LogLevel> lowest_level = LogLevel::kInfo;
std::atomic<LogFormat> log_format = LogFormat::kText;

absl::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kAudit:
      return "AUDIT";
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

bool IsLogged(LogLevel level) { return level >= lowest_level.load(); }

void SetLogFormat(LogFormat format) { log_format.store(format); }

std::string LogLine(absl::Time time, LogLevel level, absl::string_view message, LogFormat format,
                    const LogFields& fields) {
  const std::string when = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
  std::string line;
  if (format == LogFormat::kJson) {
    line = absl::StrCat("{\"time\":", JsonString(when), ",\"level\":", JsonString(NameOf(level)),
                        ",\"message\":", JsonString(message));
    for (const auto& [name, value] : fields) {
      absl::StrAppend(&line, ",", JsonString(name), ":", JsonString(value));
    }
    line += "}";
  } else {
    line = absl::StrCat(when, " ", NameOf(level), " ", message);
    for (const auto& [name, value] : fields) absl::StrAppend(&line, " ", name, "=", value);
    std::replace(line.begin(), line.end(), '\n', ' ');
  }
  return line + "\n";
}

void Log(LogLevel level, absl::string_view message, const LogFields& fields) {
  if (!IsLogged(level)) return;
  const std::string line = LogLine(absl::Now(), level, message, log_format.load(), fields);
  // Nothing can be done about a stderr that takes no more.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace fisherd::server
