#include "server/options.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/machine_memory.h"
#include "server/unix_socket.h"

namespace fisherd::server {
namespace {

struct Flag {
  absl::string_view name;
  absl::string_view value;  // what stands for it in the help; empty: the flag takes none
  absl::string_view help;
  absl::Status (*set)(CommandLine&, absl::string_view value);
};

struct Unit {
  absl::string_view suffix;
  int64_t bytes;
};
constexpr Unit kUnits[] = {{"TiB", int64_t{1} << 40},
                           {"GiB", int64_t{1} << 30},
                           {"MiB", int64_t{1} << 20},
                           {"KiB", int64_t{1} << 10}};

template <typename... Parts>
absl::Status Expected(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", parts...));
}

absl::Status SetInt(absl::string_view text, int low, int high, int& out) {
  int value;
  if (!absl::SimpleAtoi(text, &value) || value < low || value > high) {
    return Expected("a whole number from ", low, " to ", high);
  }
  out = value;
  return absl::OkStatus();
}

absl::Status SetBytes(absl::string_view text, int64_t& out) {
  auto bytes = ParseBytes(text);
  if (!bytes.ok()) return bytes.status();
  out = *bytes;
  return absl::OkStatus();
}

absl::Status SetDuration(absl::string_view text, absl::Duration least, absl::Duration& out) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < least || value > absl::Hours(24)) {
    return Expected("a duration such as 60s or 1m30s, from ", absl::FormatDuration(least),
                    " to 24h");
  }
  out = value;
  return absl::OkStatus();
}

absl::Status CheckAddress(absl::string_view text) {
  if (const auto path = SocketPath(text)) {
    if (!path->empty() && path->size() <= kMaxSocketPath) return absl::OkStatus();
    return Expected("unix:PATH with a path of 1 to ", kMaxSocketPath, " bytes");
  }
  const size_t colon = text.rfind(':');
  int port;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return Expected(
        "HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:7600 or [::]:7600, or unix:PATH");
  }
  const absl::string_view host = text.substr(0, colon);
  if (absl::StrContains(host, ':') && !(absl::StartsWith(host, "[") && absl::EndsWith(host, "]"))) {
    return Expected("an IPv6 address in brackets, such as [::1]:7600");
  }
  return absl::OkStatus();
}

absl::Status AddListen(absl::string_view text, std::vector<std::string>& out) {
  for (const absl::string_view address : absl::StrSplit(text, ',')) {
    if (absl::Status status = CheckAddress(address); !status.ok()) return status;
    out.emplace_back(address);
  }
  return absl::OkStatus();
}

absl::Status SetLevel(absl::string_view text, LogLevel& out) {
  constexpr std::pair<absl::string_view, LogLevel> kLevels[] = {
      {"info", LogLevel::kInfo}, {"warning", LogLevel::kWarning}, {"error", LogLevel::kError}};
  for (const auto& [name, level] : kLevels) {
    if (text == name) {
      out = level;
      return absl::OkStatus();
    }
  }
  return Expected("info, warning or error");
}

absl::Status SetDurability(absl::string_view text, core::DurabilityLevel& out) {
  constexpr std::pair<absl::string_view, core::DurabilityLevel> kLevels[] = {
      {"memory", core::DurabilityLevel::kMemory},
      {"snapshot", core::DurabilityLevel::kSnapshot},
      {"sync", core::DurabilityLevel::kSync}};
  for (const auto& [name, level] : kLevels) {
    if (text != name) continue;
    out = level;
    return absl::OkStatus();
  }
  return Expected("memory, snapshot or sync");
}

constexpr Flag kFlags[] = {
    {"listen", "ADDRESS,...",
     "HOST:PORT or unix:PATH to serve at (127.0.0.1:7600); port 0 takes a free one",
     [](CommandLine& c, absl::string_view v) { return AddListen(v, c.options.listen); }},
    {"http", "HOST:PORT", "answer /metrics, /livez and /readyz over plain HTTP there (none)",
     [](CommandLine& c, absl::string_view v) {
       if (SocketPath(v).has_value()) return Expected("HOST:PORT, such as 127.0.0.1:7601");
       if (absl::Status status = CheckAddress(v); !status.ok()) return status;
       c.options.http = std::string(v);
       return absl::OkStatus();
     }},
    {"port-file", "PATH", "once serving, write the port to this file, whole or not at all",
     [](CommandLine& c, absl::string_view v) {
       if (v.empty()) return Expected("the path of a file");
       c.options.port_file = std::string(v);
       return absl::OkStatus();
     }},
    {"state-budget", "BYTES", "most memory for factors and results (half of the machine's)",
     [](CommandLine& c, absl::string_view v) { return SetBytes(v, c.options.state_budget); }},
    {"batch-budget", "BYTES", "most memory for batches of open steps (a quarter of the machine's)",
     [](CommandLine& c, absl::string_view v) { return SetBytes(v, c.options.batch_budget); }},
    {"factor-batch-limit", "BYTES", "most of it for one factor (all)",
     [](CommandLine& c, absl::string_view v) { return SetBytes(v, c.options.factor_batch_limit); }},
    {"shared-memory", "PATH", "socket where trainers on this machine share memory with it (none)",
     [](CommandLine& c, absl::string_view v) {
       if (v.empty() || v.size() > kMaxSocketPath) {
         return Expected("a path of 1 to ", kMaxSocketPath, " bytes");
       }
       c.options.shared_memory = std::string(v);
       return absl::OkStatus();
     }},
    {"shared-memory-limit", "BYTES", "most memory that they share (a quarter of the machine's)",
     [](CommandLine& c, absl::string_view v) {
       return SetBytes(v, c.options.shared_memory_limit);
     }},
    {"compute-threads", "N", "threads that compute (as many as the machine runs at once)",
     [](CommandLine& c, absl::string_view v) {
       return SetInt(v, 1, 1024, c.options.compute_threads);
     }},
    {"window", "N", "steps of a factor that may be open at once (4)",
     [](CommandLine& c, absl::string_view v) { return SetInt(v, 1, 1024, c.options.window); }},
    {"gather-timeout", "DURATION",
     "how long a step waits for its towers, if the factor is not told (10m)",
     [](CommandLine& c, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), c.options.gather_timeout);
     }},
    {"recovery-timeout", "DURATION",
     "after a restart, how long a step waits for towers that have not come back (10m)",
     [](CommandLine& c, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), c.options.recovery_timeout);
     }},
    {"data-dir", "PATH", "directory where factors survive the server (none)",
     [](CommandLine& c, absl::string_view v) {
       if (v.empty()) return Expected("the path of a directory");
       c.options.data_dir = std::string(v);
       return absl::OkStatus();
     }},
    {"durability", "LEVEL", "memory, snapshot or sync, if the factor is not told (snapshot)",
     [](CommandLine& c, absl::string_view v) { return SetDurability(v, c.options.durability); }},
    {"snapshot-interval", "DURATION", "how often factors that have changed are saved (60s)",
     [](CommandLine& c, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), c.options.snapshot_interval);
     }},
    {"disk-reserve", "BYTES", "refuse writes when the disk has less left than this (64MiB)",
     [](CommandLine& c, absl::string_view v) { return SetBytes(v, c.options.disk_reserve); }},
    {"max-streams", "N", "most update streams, and UpdateOnce calls, at once (256)",
     [](CommandLine& c, absl::string_view v) {
       return SetInt(v, 1, 1000000, c.options.max_streams);
     }},
    {"read-stall-timeout", "DURATION", "end a transfer that stands still for this long (60s)",
     [](CommandLine& c, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), c.options.read_stall_timeout);
     }},
    {"shutdown-grace", "DURATION", "time for calls under way to end at shutdown (10s)",
     [](CommandLine& c, absl::string_view v) {
       return SetDuration(v, absl::ZeroDuration(), c.options.shutdown_grace);
     }},
    {"log-level", "LEVEL", "info, warning or error (info)",
     [](CommandLine& c, absl::string_view v) { return SetLevel(v, c.options.log_level); }},
    {"version", "", "print the version",
     [](CommandLine& c, absl::string_view) {
       c.action = CommandLine::Action::kShowVersion;
       return absl::OkStatus();
     }},
    {"help", "", "print this",
     [](CommandLine& c, absl::string_view) {
       c.action = CommandLine::Action::kShowHelp;
       return absl::OkStatus();
     }},
};

// Levenshtein's: how many insertions, deletions and replacements turn one into the other.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

absl::Status UnknownFlag(absl::string_view name) {
  const Flag* nearest =
      std::min_element(std::begin(kFlags), std::end(kFlags), [name](const Flag& a, const Flag& b) {
        return EditDistance(name, a.name) < EditDistance(name, b.name);
      });
  return absl::InvalidArgumentError(
      absl::StrCat("unknown flag --", name, "; did you mean --", nearest->name, "?"));
}

}  // namespace

Options DefaultOptions() {
  Options options;
  // A machine that does not say gets what a small one would.
  const int64_t memory = std::max(MachineMemory(), int64_t{1} << 30);
  options.batch_budget = memory / 4 >> 20 << 20;  // whole MiB read better
  options.state_budget = 2 * options.batch_budget;
  options.shared_memory_limit = options.batch_budget;
  options.compute_threads = std::clamp<int>(std::thread::hardware_concurrency(), 1, 1024);
  return options;
}

absl::StatusOr<CommandLine> ParseCommandLine(std::span<const char* const> arguments,
                                             const Options& defaults) {
  CommandLine command_line{.options = defaults};
  command_line.options.listen.clear();  // every --listen adds to it
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view name = arguments[i];
    if (!absl::ConsumePrefix(&name, "--") || name.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected argument '", arguments[i], "'; flags begin with --"));
    }
    std::optional<absl::string_view> value;
    if (const size_t equals = name.find('='); equals != absl::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const Flag* flag = std::find_if(std::begin(kFlags), std::end(kFlags),
                                    [name](const Flag& f) { return f.name == name; });
    if (flag == std::end(kFlags)) return UnknownFlag(name);
    if (flag->value.empty()) {
      if (value) return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
    } else if (!value) {
      if (++i == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a ", flag->value));
      }
      value = arguments[i];
    }
    if (absl::Status status = flag->set(command_line, value.value_or("")); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", name, "=", *value, ": ", status.message()));
    }
  }
  if (command_line.options.listen.empty()) command_line.options.listen = defaults.listen;
  return command_line;
}

std::string HelpText() {
  std::string text =
      "fisherd: keeps named Fisher factors, updated by streamed batches, and serves them over "
      "gRPC.\n\nfisherd [--FLAG=VALUE ...]\n\n";
  for (const Flag& flag : kFlags) {
    absl::StrAppendFormat(&text, "  %-31s%s\n",
                          absl::StrCat("--", flag.name, flag.value.empty() ? "" : "=", flag.value),
                          flag.help);
  }
  return text + "\nBYTES: a whole number, with KiB, MiB, GiB or TiB if wanted.\n";
}

bool IsLocal(absl::string_view address) {
  if (SocketPath(address).has_value()) return true;
  const absl::string_view host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host == "[::1]" || absl::StartsWith(host, "127.");
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  int64_t unit = 1;
  for (const Unit& candidate : kUnits) {
    if (absl::ConsumeSuffix(&text, candidate.suffix)) {
      unit = candidate.bytes;
      break;
    }
  }
  int64_t count;
  if (!absl::SimpleAtoi(text, &count) || count < 1 ||
      count > std::numeric_limits<int64_t>::max() / unit) {
    return Expected("a positive number of bytes such as 1073741824, 512MiB or 4GiB");
  }
  return count * unit;
}

std::string FormatBytes(int64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes % unit.bytes == 0) return absl::StrCat(bytes / unit.bytes, unit.suffix);
  }
  return absl::StrCat(bytes);
}

}  // namespace fisherd::server
