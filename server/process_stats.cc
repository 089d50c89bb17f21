#include "server/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

namespace fisherd::server {
namespace {

std::string Contents(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Since when the machine runs, in seconds since 1970.
double BootTime() {
  std::istringstream text(Contents("/proc/stat"));
  std::string line;
  int64_t seconds = 0;
  while (std::getline(text, line)) {
    if (line.starts_with("btime ") && absl::SimpleAtoi(line.substr(6), &seconds)) break;
  }
  return static_cast<double>(seconds);
}

}  // namespace

ProcessStats GetProcessStats() {
  ProcessStats stats;
  // proc(5): field 2 is the command in brackets, which may have spaces and brackets in it.
  const std::string text = Contents("/proc/self/stat");
  if (const size_t bracket = text.rfind(')'); bracket != std::string::npos) {
    std::istringstream words(text.substr(bracket + 1));
    std::vector<std::string> fields(3);  // the first word is field 3
    for (std::string word; words >> word;) fields.push_back(word);
    const auto field = [&](size_t number) {
      int64_t value = 0;
      if (number >= fields.size() || !absl::SimpleAtoi(fields[number], &value)) return int64_t{0};
      return value;
    };
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    stats.cpu_seconds = static_cast<double>(field(14) + field(15)) / ticks;
    stats.threads = field(20);
    stats.start_time = BootTime() + static_cast<double>(field(22)) / ticks;
    stats.virtual_bytes = field(23);
    stats.resident_bytes = field(24) * sysconf(_SC_PAGESIZE);
  }
  std::error_code error;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++stats.open_files;
  }
  if (rlimit limit; getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    stats.max_files = static_cast<int64_t>(limit.rlim_cur);
  }
  return stats;
}

}  // namespace fisherd::server
