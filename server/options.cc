#include "server/options.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/machine_memory.h"
#include "server/unix_socket.h"

namespace fisherd::server {
namespace {

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

template <typename T>
using Names = std::initializer_list<std::pair<absl::string_view, T>>;

// One of a few words.
template <typename T>
absl::Status SetWord(absl::string_view text, Names<T> words, T& out) {
  std::string known;
  size_t left = words.size();
  for (const auto& [word, value] : words) {
    if (text == word) {
      out = value;
      return absl::OkStatus();
    }
    --left;
    absl::StrAppend(&known, word, left > 1 ? ", " : left == 1 ? " or " : "");
  }
  return Expected(known);
}

absl::Status SetLevel(absl::string_view text, LogLevel& out) {
  return SetWord<LogLevel>(text,
                           {{"debug", LogLevel::kDebug},
                            {"info", LogLevel::kInfo},
                            {"warning", LogLevel::kWarning},
                            {"error", LogLevel::kError}},
                           out);
}

absl::Status SetFormat(absl::string_view text, LogFormat& out) {
  return SetWord<LogFormat>(text, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, out);
}

absl::Status SetBool(absl::string_view text, bool& out) {
  return SetWord<bool>(text, {{"true", true}, {"false", false}}, out);
}

absl::Status SetPath(absl::string_view text, std::string& out) {
  if (text.empty()) return Expected("the path of a file");
  out = std::string(text);
  return absl::OkStatus();
}

absl::Status SetDurability(absl::string_view text, core::DurabilityLevel& out) {
  return SetWord<core::DurabilityLevel>(text,
                                        {{"memory", core::DurabilityLevel::kMemory},
                                         {"snapshot", core::DurabilityLevel::kSnapshot},
                                         {"sync", core::DurabilityLevel::kSync}},
                                        out);
}

constexpr Setting kSettings[] = {
    {"listen", "ADDRESS,...",
     "HOST:PORT or unix:PATH to serve at (127.0.0.1:7600); port 0 takes a free one",
     [](Options& o, absl::string_view v) { return AddListen(v, o.listen); }},
    {"insecure", "", "listen in the clear where other machines reach it",
     [](Options& o, absl::string_view v) { return SetBool(v, o.insecure); }},
    {"tls-cert", "PATH", "certificate chain (PEM) for TLS at every HOST:PORT (none)",
     [](Options& o, absl::string_view v) { return SetPath(v, o.tls.certificate); }},
    {"tls-key", "PATH", "its private key (PEM)",
     [](Options& o, absl::string_view v) { return SetPath(v, o.tls.key); }},
    {"tls-client-ca", "PATH", "require client certificates that these (PEM) have signed (none)",
     [](Options& o, absl::string_view v) { return SetPath(v, o.tls.client_ca); }},
    {"identities", "PATH", "who may do what (docs/security.md; everyone may do everything)",
     [](Options& o, absl::string_view v) { return SetPath(v, o.identities); }},
    {"http", "HOST:PORT",
     "answer /metrics, /livez, /readyz and /statusz over plain HTTP there (none)",
     [](Options& o, absl::string_view v) {
       if (SocketPath(v).has_value()) return Expected("HOST:PORT, such as 127.0.0.1:7601");
       if (absl::Status status = CheckAddress(v); !status.ok()) return status;
       o.http = std::string(v);
       return absl::OkStatus();
     }},
    {"statusz", "WHERE",
     "local, always or never: /statusz shows factors to whoever reaches the HTTP port (local)",
     [](Options& o, absl::string_view v) {
       return SetWord<Statusz>(
           v,
           {{"local", Statusz::kLocal}, {"always", Statusz::kAlways}, {"never", Statusz::kNever}},
           o.statusz);
     }},
    {"port-file", "PATH", "once serving, write the port to this file, whole or not at all",
     [](Options& o, absl::string_view v) { return SetPath(v, o.port_file); }},
    {"state-budget", "BYTES", "most memory for factors and results (half of the machine's)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.state_budget); }},
    {"batch-budget", "BYTES", "most memory for batches of open steps (a quarter of the machine's)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.batch_budget); }},
    {"backend", "WHERE",
     "auto, cpu or cuda: where factors live that do not say; auto: a GPU with room, else the cpu "
     "(auto)",
     [](Options& o, absl::string_view v) {
       return SetWord<core::BackendChoice>(v,
                                           {{"auto", core::BackendChoice::kAny},
                                            {"cpu", core::BackendChoice::kCpu},
                                            {"cuda", core::BackendChoice::kCuda}},
                                           o.backend);
     }},
    {"gpu-memory", "BYTES", "most memory of each GPU (what is free when the server starts)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.gpu_memory); }},
    {"gpu-tf32", "", "on GPUs multiply FLOAT32 as 11-bit numbers: faster, errors up to 1e-3",
     [](Options& o, absl::string_view v) { return SetBool(v, o.gpu_tf32); }},
    {"factor-batch-limit", "BYTES", "most of it for one factor (all)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.factor_batch_limit); }},
    {"shared-memory", "PATH", "socket where trainers on this machine share memory with it (none)",
     [](Options& o, absl::string_view v) {
       if (v.empty() || v.size() > kMaxSocketPath) {
         return Expected("a path of 1 to ", kMaxSocketPath, " bytes");
       }
       o.shared_memory = std::string(v);
       return absl::OkStatus();
     }},
    {"shared-memory-limit", "BYTES", "most memory that they share (a quarter of the machine's)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.shared_memory_limit); }},
    {"compute-threads", "N", "threads that compute (as many as the machine runs at once)",
     [](Options& o, absl::string_view v) { return SetInt(v, 1, 1024, o.compute_threads); }},
    {"window", "N", "steps of a factor that may be open at once (4)",
     [](Options& o, absl::string_view v) { return SetInt(v, 1, 1024, o.window); }},
    {"gather-timeout", "DURATION",
     "how long a step waits for its towers, if the factor is not told (10m)",
     [](Options& o, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), o.gather_timeout);
     }},
    {"recovery-timeout", "DURATION",
     "after a restart, how long a step waits for towers that have not come back (10m)",
     [](Options& o, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), o.recovery_timeout);
     }},
    {"data-dir", "PATH", "directory where factors survive the server (none)",
     [](Options& o, absl::string_view v) {
       if (v.empty()) return Expected("the path of a directory");
       o.data_dir = std::string(v);
       return absl::OkStatus();
     }},
    {"durability", "LEVEL", "memory, snapshot or sync, if the factor is not told (snapshot)",
     [](Options& o, absl::string_view v) { return SetDurability(v, o.durability); }},
    {"snapshot-interval", "DURATION", "how often factors that have changed are saved (60s)",
     [](Options& o, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), o.snapshot_interval);
     }},
    {"disk-reserve", "BYTES", "refuse writes when the disk has less left than this (64MiB)",
     [](Options& o, absl::string_view v) { return SetBytes(v, o.disk_reserve); }},
    {"max-streams", "N", "most update streams, and UpdateOnce calls, at once (256)",
     [](Options& o, absl::string_view v) { return SetInt(v, 1, 1000000, o.max_streams); }},
    {"read-stall-timeout", "DURATION", "end a transfer that stands still for this long (60s)",
     [](Options& o, absl::string_view v) {
       return SetDuration(v, absl::Milliseconds(1), o.read_stall_timeout);
     }},
    {"shutdown-grace", "DURATION", "time for calls under way to end at shutdown (10s)",
     [](Options& o, absl::string_view v) {
       return SetDuration(v, absl::ZeroDuration(), o.shutdown_grace);
     }},
    {"log-level", "LEVEL", "debug, info, warning or error (info)",
     [](Options& o, absl::string_view v) { return SetLevel(v, o.log_level); }, /*reloads=*/true},
    {"log-format", "FORMAT", "text or json (text)",
     [](Options& o, absl::string_view v) { return SetFormat(v, o.log_format); }, /*reloads=*/true},
    {"metrics-factor-prefix", "PREFIX,...",
     "give factors of these prefixes, 100 at most, figures of their own (none)",
     [](Options& o, absl::string_view v) {
       for (const absl::string_view prefix : absl::StrSplit(v, ',')) {
         o.metrics_factor_prefixes.emplace_back(prefix);
       }
       return absl::OkStatus();
     }},
    {"channelz", "", "serve gRPC's channelz too, which shows who is connected",
     [](Options& o, absl::string_view v) { return SetBool(v, o.channelz); }},
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

}  // namespace

std::span<const Setting> AllSettings() { return kSettings; }

const Setting* FindSetting(absl::string_view name) {
  const auto found = std::find_if(std::begin(kSettings), std::end(kSettings),
                                  [name](const Setting& s) { return s.name == name; });
  return found == std::end(kSettings) ? nullptr : found;
}

const Setting& NearestSetting(absl::string_view name) {
  return *std::min_element(std::begin(kSettings), std::end(kSettings),
                           [name](const Setting& a, const Setting& b) {
                             return EditDistance(name, a.name) < EditDistance(name, b.name);
                           });
}

absl::Status CheckOptions(const Options& options) {
  const bool tls = !options.tls.certificate.empty();
  if (tls != !options.tls.key.empty()) {
    return absl::InvalidArgumentError("tls-cert and tls-key go together; one of them is missing");
  }
  if (!tls && !options.tls.client_ca.empty()) {
    return absl::InvalidArgumentError("tls-client-ca needs tls-cert and tls-key");
  }
  for (const std::string& address : options.listen) {
    if (tls || options.insecure || IsLocal(address)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("listen: ", address,
                     " can be reached by other machines, and nothing would be encrypted; "
                     "give tls-cert and tls-key, or insecure if that is meant"));
  }
  return absl::OkStatus();
}

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
