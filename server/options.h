// What the server is told at its start: one validated struct, and how its fields are written.

#ifndef FISHERD_SERVER_OPTIONS_H_
#define FISHERD_SERVER_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "core/factor_spec.h"
#include "server/auth/tls.h"
#include "server/log.h"

namespace fisherd::server {

// Where the HTTP port has pages that show factors to whoever asks.
enum class Statusz { kLocal, kAlways, kNever };  // kLocal: where this machine alone reaches it

struct Options {
  // HOST:PORT, where port 0 takes a free one, or unix:PATH; at least one.
  std::vector<std::string> listen = {"127.0.0.1:7600"};
  std::string http;  // HOST:PORT of the plain HTTP port; empty: none
  Statusz statusz = Statusz::kLocal;
  std::string port_file;     // empty: none; else there must be a HOST:PORT
  int64_t state_budget = 0;  // bytes, at least 1
  int64_t batch_budget = 0;  // bytes, at least 1
  core::BackendChoice backend = core::BackendChoice::kAny;  // of factors that do not say
  int64_t gpu_memory = 0;           // bytes of each GPU's that are used; 0: what is free
  bool gpu_tf32 = false;            // products of 11-bit numbers there
  int64_t factor_batch_limit = 0;   // bytes of it for one factor; 0: all
  std::string shared_memory;        // path of the socket where clients share theirs; empty: none
  int64_t shared_memory_limit = 0;  // bytes of it, at least 1
  int compute_threads = 1;          // 1 to 1024
  int window = 4;                   // open steps per factor, 1 to 1024, unless it says so
  absl::Duration gather_timeout = absl::Minutes(10);
  absl::Duration recovery_timeout = absl::Minutes(10);  // in its place after a restart
  std::string data_dir;                                 // empty: nothing survives
  core::DurabilityLevel durability =
      core::DurabilityLevel::kSnapshot;  // of factors there, unless they say
  absl::Duration snapshot_interval = absl::Seconds(60);
  int64_t disk_reserve = int64_t{64} << 20;  // bytes of the disk, at least 1
  int max_streams = 256;  // update streams, and UpdateOnce calls, at once; at least 1
  absl::Duration read_stall_timeout = absl::Seconds(60);
  absl::Duration shutdown_grace = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  TlsFiles tls;           // without a certificate: no TLS
  bool insecure = false;  // may listen in the clear where others reach it
  std::string
      identities;  // file of who may do what (auth/identities.h); empty: everyone everything
  std::vector<std::string> metrics_factor_prefixes;  // of factors that get figures of their own
  bool channelz = false;                             // serve grpc.channelz.v1 too
};

// Those that fit this machine: half of its memory for states, a quarter for batches, a quarter
// for clients to share, as many compute threads as it runs at once.
Options DefaultOptions();

// One option as people write it: a flag, a line of a file, a variable of the environment.
struct Setting {
  absl::string_view name;   // "state-budget"
  absl::string_view value;  // what stands for it in the help; empty: it is on or off
  absl::string_view help;
  // INVALID_ARGUMENT with what was expected. Of a list, it adds to what there is.
  absl::Status (*set)(Options&, absl::string_view value);
  bool reloads = false;  // SIGHUP takes it over
};
// All of them, in the order of the help.
std::span<const Setting> AllSettings();
// Null if there is none of that name.
const Setting* FindSetting(absl::string_view name);
// The one whose name is nearest to what somebody wrote.
const Setting& NearestSetting(absl::string_view name);

// INVALID_ARGUMENT if they do not go together: half of a certificate, or an address that others
// reach in the clear without a word that this is meant.
absl::Status CheckOptions(const Options& options);

// Whether an address is reached from this machine alone.
bool IsLocal(absl::string_view address);

// "4GiB", "512MiB" or a plain number of bytes; whole numbers only.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);
// The shortest exact form that ParseBytes takes.
std::string FormatBytes(int64_t bytes);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_OPTIONS_H_
