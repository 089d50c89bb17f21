#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/options.h"
#include "tests/bench/core/json_object.h"
#include "tests/bench/stream/stream.h"

namespace fisherd::bench {
namespace {

constexpr double kGiga = 1e9;
constexpr double kMicro = 1e6;
constexpr int64_t kLargeBatch = 256 << 10;
constexpr int64_t kSharedBatch = 1 << 20;

double MiBOf(int64_t bytes) { return bytes / double{1 << 20}; }

double Micros(const std::optional<double>& seconds) {
  return seconds ? *seconds * kMicro : std::nan("");  // JSON's null
}

std::string MicrosText(const std::optional<double>& seconds) {
  return seconds ? absl::StrFormat("%.0f", *seconds * kMicro) : "-";
}

// The figure that is furthest from its bound.
void Add(std::vector<Claim>& claims, Claim claim, const std::string& where, double figure) {
  const auto known = std::ranges::find(claims, claim.what, &Claim::what);
  Claim& kept = known == claims.end() ? claims.emplace_back(claim) : *known;
  const bool worse = claim.at_least ? figure < kept.figure : figure > kept.figure;
  if (kept.cases++ == 0 || worse) {
    kept.figure = figure;
    kept.where = where;
  }
}

Object ResultObject(const StreamResult& r) {
  return Object()
      .Text("name", r.sizes.Name())
      .Text("transport", std::string(r.sizes.TransportName()))
      .Put("batch_bytes", r.sizes.batch_bytes)
      .Put("trainers", r.sizes.trainers)
      .Put("factors", r.sizes.factors)
      .Put("ours_gbps", r.ours.bytes_per_second / kGiga)
      .Put("raw_gbps", r.raw.bytes_per_second / kGiga)
      .Put("tcp_gbps", r.tcp ? r.tcp->bytes_per_second / kGiga : std::nan(""))
      .Put("in_process_gbps", r.in_process / kGiga)
      .Put("p50_us", Micros(r.ours.p50))
      .Put("p99_us", Micros(r.ours.p99))
      .Put("raw_p50_us", Micros(r.raw.p50))
      .Put("raw_p99_us", Micros(r.raw.p99))
      .Put("cpu_s_per_gb", r.ours.cpu_seconds_per_gb)
      .Put("raw_cpu_s_per_gb", r.raw.cpu_seconds_per_gb)
      .Put("trainers_cpu_s_per_gb", r.ours.trainers_cpu_seconds_per_gb)
      .Put("raw_trainers_cpu_s_per_gb", r.raw.trainers_cpu_seconds_per_gb)
      .Put("rss_mib", MiBOf(r.ours.peak_resident_bytes))
      .Put("raw_rss_mib", MiBOf(r.raw.peak_resident_bytes));
}

Object MeteredObject(const MeteredResult& r) {
  return Object()
      .Text("name", r.sizes.Name())
      .Put("scraped_gbps", r.scraped / kGiga)
      .Put("plain_gbps", r.plain / kGiga)
      .Put("ratio", r.ratio);
}

Object CostsObject(const ClientCosts& c) {
  return Object()
      .Put("batch_bytes", c.batch_bytes)
      .Put("copy_gbps", c.copy / kGiga)
      .Put("digest_gbps", c.digest / kGiga)
      .Put("crc_gbps", c.crc / kGiga)
      .Put("encode_gbps", c.encode / kGiga)
      .Put("serialize_gbps", c.serialize / kGiga);
}

}  // namespace

void PrintStreamHead() {
  absl::PrintF(
      "GB/s (10^9 bytes of elements a second); in-process: the server's work without a network;\n"
      "CPU/GB, tr/GB: seconds of the server's and of the trainers' CPU time; MiB: the server's "
      "peak\n"
      "%-20s %7s %7s %7s %6s | %8s %8s %8s %8s | %6s %6s %6s %6s | %6s %6s\n",
      "transport/batch/…", "ours", "raw", "in-proc", "/ raw", "p50 us", "raw p50", "p99 us",
      "raw p99", "CPU/GB", "raw", "tr/GB", "raw", "MiB", "raw");
  std::fflush(stdout);
}

void PrintStreamRow(const StreamResult& r) {
  absl::PrintF(
      "%-20s %7.2f %7.2f %7.2f %5.0f%% | %8s %8s %8s %8s | %6.2f %6.2f %6.2f %6.2f | %6.0f %6.0f\n",
      r.sizes.Name(), r.ours.bytes_per_second / kGiga, r.raw.bytes_per_second / kGiga,
      r.in_process / kGiga, 100 * r.ours.bytes_per_second / r.raw.bytes_per_second,
      MicrosText(r.ours.p50), MicrosText(r.raw.p50), MicrosText(r.ours.p99), MicrosText(r.raw.p99),
      r.ours.cpu_seconds_per_gb, r.raw.cpu_seconds_per_gb, r.ours.trainers_cpu_seconds_per_gb,
      r.raw.trainers_cpu_seconds_per_gb, MiBOf(r.ours.peak_resident_bytes),
      MiBOf(r.raw.peak_resident_bytes));
  std::fflush(stdout);
}

void PrintShared(const std::vector<StreamResult>& results) {
  bool any = false;
  for (const StreamResult& r : results) {
    if (!r.tcp) continue;
    if (!std::exchange(any, true)) {
      absl::PrintF(
          "\nshared memory beside TCP, in turns\n%-20s %7s %7s %7s | %8s %8s | %6s %6s | "
          "%6s %6s\n",
          "transport/batch/…", "GB/s", "tcp", "ratio", "p50 us", "tcp", "CPU/GB", "tcp", "tr/GB",
          "tcp");
    }
    absl::PrintF("%-20s %7.2f %7.2f %7.2f | %8s %8s | %6.2f %6.2f | %6.2f %6.2f\n", r.sizes.Name(),
                 r.ours.bytes_per_second / kGiga, r.tcp->bytes_per_second / kGiga,
                 r.ours.bytes_per_second / r.tcp->bytes_per_second, MicrosText(r.ours.p50),
                 MicrosText(r.tcp->p50), r.ours.cpu_seconds_per_gb, r.tcp->cpu_seconds_per_gb,
                 r.ours.trainers_cpu_seconds_per_gb, r.tcp->trainers_cpu_seconds_per_gb);
  }
  std::fflush(stdout);
}

void PrintMetered(const std::vector<MeteredResult>& results) {
  absl::PrintF(
      "\nwith metrics, scraped every second, beside without, in turns: GB/s\n%-20s %7s %7s "
      "%7s\n",
      "transport/batch/…", "with", "without", "ratio");
  for (const MeteredResult& r : results) {
    absl::PrintF("%-20s %7.2f %7.2f %7.3f\n", r.sizes.Name(), r.scraped / kGiga, r.plain / kGiga,
                 r.ratio);
  }
  std::fflush(stdout);
}

void PrintClientCosts(const std::vector<ClientCosts>& costs) {
  absl::PrintF("\nwhat a batch costs its trainer before gRPC has it: GB/s on one thread\n%-10s",
               "batch");
  absl::PrintF(" %9s %9s %9s %9s %9s\n", "copy", "digest", "crc", "encode", "serialize");
  for (const ClientCosts& c : costs) {
    absl::PrintF("%-10s %9.2f %9.2f %9.2f %9.2f %9.2f\n",
                 std::string(server::FormatBytes(c.batch_bytes)), c.copy / kGiga, c.digest / kGiga,
                 c.crc / kGiga, c.encode / kGiga, c.serialize / kGiga);
  }
  std::fflush(stdout);
}

std::vector<Claim> StreamClaims(const std::vector<StreamResult>& results,
                                const std::vector<MeteredResult>& metered) {
  std::vector<Claim> claims;
  for (const MeteredResult& r : metered) {
    Add(claims, {.what = "throughput with metrics / without", .bound = 0.99}, r.sizes.Name(),
        r.ratio);
  }
  for (const StreamResult& r : results) {
    const std::string name = r.sizes.Name();
    if (r.sizes.batch_bytes >= kLargeBatch) {
      Add(claims,
          {.what = "ours / the lesser of 80 % of raw and 90 % of in-process, from 256 KiB",
           .bound = 1},
          name,
          r.ours.bytes_per_second / std::min(0.8 * r.raw.bytes_per_second, 0.9 * r.in_process));
    }
    if (r.tcp && r.sizes.batch_bytes >= kSharedBatch) {
      Add(claims, {.what = "shared memory / TCP, from 1 MiB", .bound = 1.5}, name,
          r.ours.bytes_per_second / r.tcp->bytes_per_second);
    }
    if (r.ours.p50) {
      Add(claims, {.what = "round trip, p50 / raw's", .bound = 1.3, .at_least = false}, name,
          *r.ours.p50 / *r.raw.p50);
    }
  }
  return claims;
}

std::string StreamJson(const std::vector<StreamResult>& results,
                       const std::vector<ClientCosts>& costs,
                       const std::vector<MeteredResult>& metered,
                       const std::vector<Claim>& claims) {
  return absl::StrCat("{\"results\": ", JsonList(results, ResultObject),
                      ",\n\"client\": ", JsonList(costs, CostsObject),
                      ",\n\"metrics\": ", JsonList(metered, MeteredObject),
                      ",\n\"claims\": ", JsonList(claims, ClaimObject), "}\n");
}

}  // namespace fisherd::bench
