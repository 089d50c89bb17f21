#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include "core/kernels/target.h"
#include "version.h"

namespace fisherd::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// The families, one after another.
class Families {
 public:
  void Gauge(const std::string& name, const std::string& help, double value, Labels labels = {}) {
    ClientMetric& metric = Add(name, help, MetricType::Gauge, std::move(labels));
    metric.gauge.value = value;
  }
  void Counter(const std::string& name, const std::string& help, double value, Labels labels = {}) {
    ClientMetric& metric = Add(name, help, MetricType::Counter, std::move(labels));
    metric.counter.value = value;
  }
  const std::vector<MetricFamily>& all() const { return families_; }

 private:
  ClientMetric& Add(const std::string& name, const std::string& help, MetricType type,
                    Labels labels) {
    if (families_.empty() || families_.back().name != name) {
      families_.push_back({name, help, type, {}});
    }
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }

  std::vector<MetricFamily> families_;
};

void AddFactors(const core::FactorRegistry& registry, Families& families) {
  const auto factors = registry.List("", "", std::numeric_limits<size_t>::max());
  int64_t lag = 0;
  for (const auto& factor : factors) {
    const core::FactorInfo info = factor->Describe();
    lag = std::max(lag, info.next - 1 - info.durable);
  }
  families.Gauge("fisherd_factors", "Factors that are served.",
                 static_cast<double>(factors.size()));
  families.Gauge("fisherd_durable_lag_steps",
                 "Most steps of a factor that have ended and that a crash would undo.",
                 static_cast<double>(lag));
}

void AddBudget(const std::string& name, const std::string& what, const core::ByteBudget& budget,
               Families& families) {
  families.Gauge("fisherd_" + name + "_bytes", "Memory that " + what + " take.",
                 static_cast<double>(budget.used()));
  families.Gauge("fisherd_" + name + "_budget_bytes", "Memory that " + what + " may take.",
                 static_cast<double>(budget.limit()));
}

void AddRecovery(const Recovery& recovery, Families& families) {
  constexpr char kFactors[] = "fisherd_recovery_factors";
  constexpr char kHelp[] = "Factors of the data directory at the start, by what became of them.";
  families.Gauge(kFactors, kHelp, static_cast<double>(recovery.restored), {{"state", "restored"}});
  families.Gauge(kFactors, kHelp, static_cast<double>(recovery.damaged), {{"state", "damaged"}});
  families.Gauge(kFactors, kHelp,
                 static_cast<double>(recovery.factors - recovery.restored - recovery.damaged),
                 {{"state", "waiting"}});
  families.Gauge("fisherd_recovery_seconds", "Time that the recovery at the start has taken.",
                 absl::ToDoubleSeconds(recovery.time));
}

void AddStore(const Store& store, Families& families) {
  AddRecovery(store.recovery(), families);
  const Store::Stats stats = store.stats();
  constexpr char kSnapshots[] = "fisherd_snapshots_total";
  constexpr char kHelp[] = "Snapshots that had something to save, by how they ended.";
  families.Counter(kSnapshots, kHelp, static_cast<double>(stats.snapshots.snapshots),
                   {{"outcome", "ok"}});
  families.Counter(kSnapshots, kHelp, static_cast<double>(stats.snapshots.failures),
                   {{"outcome", "failed"}});
  families.Counter("fisherd_snapshot_bytes_total", "Bytes of states and results saved.",
                   static_cast<double>(stats.snapshots.bytes));
  families.Counter("fisherd_snapshot_seconds_total", "Time spent on snapshots.",
                   absl::ToDoubleSeconds(stats.snapshots.time));
  if (stats.snapshots.last_success != absl::InfinitePast()) {
    families.Gauge("fisherd_snapshot_last_success_timestamp_seconds",
                   "When the last snapshot that saved everything ended.",
                   absl::ToDoubleSeconds(stats.snapshots.last_success - absl::UnixEpoch()));
  }
  families.Gauge("fisherd_log_bytes", "Logged steps that no snapshot covers yet, about.",
                 static_cast<double>(stats.log_bytes));
  families.Gauge("fisherd_disk_free_bytes", "Left of the data directory's disk.",
                 static_cast<double>(stats.free_bytes));
  families.Gauge("fisherd_disk_writable", "1 while the disk is neither full nor failed.",
                 stats.writable ? 1 : 0);
  families.Gauge("fisherd_disk_failed", "1 once writing has failed for good, until a restart.",
                 stats.failed ? 1 : 0);
}

}  // namespace

std::string Metrics::Text() const {
  Families families;
  families.Gauge("fisherd_build_info", "1; what this server is.", 1,
                 {{"version", kVersion},
                  {"build_type", kBuildType},
                  {"backend", backend_},
                  {"kernels", std::string(kernels::CurrentTarget())}});
  families.Gauge("fisherd_ready", "1 while the server serves.",
                 readiness_.why_not().empty() ? 1 : 0);
  AddFactors(registry_, families);
  AddBudget("state", "factors and results", registry_.state_budget(), families);
  AddBudget("batch", "batches of open steps", registry_.batch_budget(), families);
  if (store_ != nullptr) AddStore(*store_, families);
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families.all());
  return text.str();
}

}  // namespace fisherd::server
