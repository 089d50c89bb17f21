// The server's log: one line a message on stderr, with UTC time and level.

#ifndef FISHERD_SERVER_LOG_H_
#define FISHERD_SERVER_LOG_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace fisherd::server {

enum class LogLevel { kInfo, kWarning, kError };

// Messages below `level` are dropped from now on; kInfo at first. Thread-safe.
void SetLogLevel(LogLevel level);

// Writes a line whole, so that lines of several threads do not mix. Thread-safe.
void Log(LogLevel level, absl::string_view message);

// "2026-01-31T12:00:00.123Z WARNING message\n". Line breaks within the message become spaces.
std::string LogLine(absl::Time time, LogLevel level, absl::string_view message);

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
