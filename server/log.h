// The server's log: one line a message on stderr, with UTC time and level, as text or as JSON.

#ifndef FISHERD_SERVER_LOG_H_
#define FISHERD_SERVER_LOG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace fisherd::server {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kAudit };
enum class LogFormat { kText, kJson };

// Messages below `level` are dropped from now on; kInfo at first. Thread-safe.
void SetLogLevel(LogLevel level);
bool IsLogged(LogLevel level);
// Of all lines from now on; kText at first. Thread-safe.
void SetLogFormat(LogFormat format);

// What programs look for in a line, under names of a word each.
using LogFields = std::vector<std::pair<absl::string_view, std::string>>;

// Writes a line whole, so that lines of several threads do not mix. Thread-safe.
void Log(LogLevel level, absl::string_view message, const LogFields& fields = {});

//   2026-01-31T12:00:00.123Z WARNING message name=value
//   {"time":"2026-01-31T12:00:00.123Z","level":"WARNING","message":"message","name":"value"}
// and a line break. Line breaks within a text become spaces.
std::string LogLine(absl::Time time, LogLevel level, absl::string_view message,
                    LogFormat format = LogFormat::kText, const LogFields& fields = {});

template <typename... Parts>
void LogInfo(const Parts&... parts) {
  Log(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  Log(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  Log(LogLevel::kError, absl::StrCat(parts...));
}

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_LOG_H_
