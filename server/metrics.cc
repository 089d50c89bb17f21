#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "core/kernels/target.h"
#include "server/auth/tls.h"
#include "server/process_stats.h"
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
  void Histogram(const std::string& name, const std::string& help, const core::Histogram& histogram,
                 Labels labels = {}) {
    const core::Histogram::Counts counts = histogram.Get();
    ClientMetric& metric = Add(name, help, MetricType::Histogram, std::move(labels));
    for (size_t i = 0; i < counts.buckets.size(); ++i) {
      metric.histogram.sample_count += counts.buckets[i];
      const double bound = i < core::Histogram::kBounds.size()
                               ? core::Histogram::kBounds[i]
                               : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({metric.histogram.sample_count, bound});
    }
    metric.histogram.sample_sum = counts.seconds;
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
  int64_t open_steps = 0;
  for (const auto& factor : factors) {
    const core::FactorInfo info = factor->Describe();
    lag = std::max(lag, info.next - 1 - info.durable);
    open_steps += info.open_through - info.next + 1;
  }
  families.Gauge("fisherd_factors", "Factors that are served.",
                 static_cast<double>(factors.size()));
  families.Gauge("fisherd_factors_damaged",
                 "Factors that answer DATA_LOSS until they are restored or deleted.",
                 static_cast<double>(registry.damaged()));
  families.Gauge("fisherd_open_steps", "Steps that have room for their batches.",
                 static_cast<double>(open_steps));
  families.Gauge("fisherd_durable_lag_steps",
                 "Most steps of a factor that have ended and that a crash would undo.",
                 static_cast<double>(lag));
}

void AddActivity(const core::Activity& activity, Families& families) {
  const auto count = [&](const char* name, const char* help, const char* outcome,
                         const std::atomic<int64_t>& counted) {
    families.Counter(name, help, static_cast<double>(counted), {{"outcome", outcome}});
  };
  constexpr char kSteps[] = "fisherd_steps_total";
  constexpr char kStepsHelp[] = "Steps that have ended, by how.";
  count(kSteps, kStepsHelp, "whole", activity.steps_whole);
  count(kSteps, kStepsHelp, "partial", activity.steps_partial);
  count(kSteps, kStepsHelp, "failed", activity.steps_failed);
  constexpr char kBatches[] = "fisherd_batches_total";
  constexpr char kBatchesHelp[] = "Batches that were begun, by what was said to them.";
  count(kBatches, kBatchesHelp, "accepted", activity.batches_accepted);
  count(kBatches, kBatchesHelp, "duplicate", activity.batches_duplicate);
  count(kBatches, kBatchesHelp, "held", activity.batches_held);
  families.Counter("fisherd_batch_rows_total", "Rows of the batches that were accepted.",
                   static_cast<double>(activity.batch_rows));
  for (const auto& [reason, refused] : activity.batches_refused.Get()) {
    families.Counter("fisherd_batches_refused_total", "Batches that were refused, by reason.",
                     static_cast<double>(refused), {{"reason", reason}});
  }
  families.Histogram("fisherd_gather_wait_seconds",
                     "How long steps waited, from their first batch on, for what ended them.",
                     activity.gather_wait);
  constexpr char kCommit[] = "fisherd_commit_seconds";
  constexpr char kCommitHelp[] = "How long the ends of steps took, by phase.";
  families.Histogram(kCommit, kCommitHelp, activity.compute, {{"phase", "compute"}});
  families.Histogram(kCommit, kCommitHelp, activity.record, {{"phase", "record"}});
  constexpr char kReads[] = "fisherd_reads_total";
  constexpr char kReadsHelp[] = "Reads and products, by what was answered.";
  count(kReads, kReadsHelp, "full", activity.reads_full);
  count(kReads, kReadsHelp, "unchanged", activity.reads_unchanged);
  count(kReads, kReadsHelp, "error", activity.reads_failed);
  families.Counter("fisherd_results_refreshed_total", "Registered results that were computed.",
                   static_cast<double>(activity.results_computed));
}

void AddFactorGauges(const std::vector<FactorGauges::Values>& factors, Families& families) {
  const auto each = [&](const char* name, const char* help, const auto& value_of) {
    for (const FactorGauges::Values& factor : factors) {
      const std::optional<double> value = value_of(factor);
      if (value.has_value()) families.Gauge(name, help, *value, {{"factor", factor.factor}});
    }
  };
  using Values = FactorGauges::Values;
  each("fisherd_factor_last_step", "The last step that has changed the factor.",
       [](const Values& f) { return std::optional<double>(f.last_step); });
  each("fisherd_factor_effective_weight", "The weight of all that the factor has seen.",
       [](const Values& f) { return std::optional<double>(f.effective_weight); });
  each("fisherd_factor_update_age_seconds", "Since the last step that has changed the factor.",
       [](const Values& f) { return f.update_age; });
  for (const Values& factor : factors) {
    if (!factor.covariance.has_value()) continue;
    const auto add = [&](const char* stat, double value) {
      families.Gauge("fisherd_factor_covariance", "Entries of the covariance.", value,
                     {{"factor", factor.factor}, {"stat", stat}});
    };
    add("min", factor.covariance->least);
    add("mean", factor.covariance->mean);
    add("max", factor.covariance->most);
  }
  for (const Values& factor : factors) {
    if (!factor.covariance.has_value()) continue;
    for (const auto& [damping, value] : factor.dampings) {
      families.Gauge("fisherd_factor_damping_to_mean_ratio",
                     "Damping that the factor's results name, by the mean of its covariance.",
                     value / factor.covariance->mean,
                     {{"factor", factor.factor}, {"damping", damping}});
    }
  }
}

void AddCalls(const CallMetrics& calls, Families& families) {
  const std::vector<const MethodCounts*> methods = calls.All();
  const auto labels = [](const MethodCounts& method) {
    return Labels{{"grpc_type", method.type},
                  {"grpc_service", method.service},
                  {"grpc_method", method.method}};
  };
  const auto each = [&](const char* name, const char* help,
                        std::atomic<int64_t> MethodCounts::*count) {
    for (const MethodCounts* method : methods) {
      families.Counter(name, help, static_cast<double>(method->*count), labels(*method));
    }
  };
  each("grpc_server_started_total", "Calls that have begun.", &MethodCounts::started);
  each("grpc_server_msg_received_total", "Messages of clients.", &MethodCounts::received);
  each("grpc_server_msg_sent_total", "Messages to clients.", &MethodCounts::sent);
  for (const MethodCounts* method : methods) {
    for (size_t code = 0; code < method->handled.size(); ++code) {
      if (method->handled[code] == 0) continue;
      Labels with_code = labels(*method);
      with_code.push_back({"grpc_code", CodeName(static_cast<int>(code))});
      families.Counter("grpc_server_handled_total", "Calls that have ended, by status.",
                       static_cast<double>(method->handled[code]), std::move(with_code));
    }
  }
  for (const MethodCounts* method : methods) {
    families.Histogram("grpc_server_handling_seconds", "How long calls took, streams whole.",
                       method->time, labels(*method));
  }
}

void AddProcess(Families& families) {
  const ProcessStats stats = GetProcessStats();
  families.Counter("process_cpu_seconds_total", "Time on all processors.", stats.cpu_seconds);
  families.Gauge("process_start_time_seconds", "When the process began.", stats.start_time);
  families.Gauge("process_resident_memory_bytes", "Memory that is resident.",
                 static_cast<double>(stats.resident_bytes));
  families.Gauge("process_virtual_memory_bytes", "Memory that is mapped.",
                 static_cast<double>(stats.virtual_bytes));
  families.Gauge("process_open_fds", "Files and sockets that are open.",
                 static_cast<double>(stats.open_files));
  families.Gauge("process_max_fds", "Files and sockets that may be open.",
                 static_cast<double>(stats.max_files));
  families.Gauge("process_threads", "Threads.", static_cast<double>(stats.threads));
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

// One after the other of the figures, each of all devices.
void AddDevices(const core::Devices& devices, const core::Placement& placement,
                Families& families) {
  struct Device {
    Labels labels;
    core::DeviceBackend::Stats stats;
    const core::ByteBudget* budget;
    bool lost;
  };
  std::vector<Device> all;
  for (size_t i = 0; i < devices.found.size(); ++i) {
    const core::DeviceBackend& device = *devices.found[i];
    all.push_back({{{"device", device.device()}},
                   device.stats(),
                   &placement.devices()[i]->budget,
                   !device.Check().ok()});
  }
  const auto gauge = [&](const char* name, const char* help, const auto& value_of) {
    for (const Device& device : all) {
      families.Gauge(name, help, static_cast<double>(value_of(device)), device.labels);
    }
  };
  const auto counter = [&](const char* name, const char* help, const auto& value_of) {
    for (const Device& device : all) {
      families.Counter(name, help, static_cast<double>(value_of(device)), device.labels);
    }
  };
  gauge("fisherd_device_memory_bytes", "Memory of the GPU.",
        [](const Device& d) { return d.stats.memory_bytes; });
  gauge("fisherd_device_memory_free_bytes", "Memory of the GPU that nobody has.",
        [](const Device& d) { return d.stats.free_bytes; });
  gauge("fisherd_device_state_bytes", "Memory that factors and results take on the GPU.",
        [](const Device& d) { return d.budget->used(); });
  gauge("fisherd_device_state_budget_bytes", "Memory that they may take there.",
        [](const Device& d) { return d.budget->limit(); });
  gauge("fisherd_device_pinned_bytes", "Host memory that the GPU reads directly, for batches.",
        [](const Device& d) { return d.stats.pinned_bytes; });
  gauge("fisherd_device_lost", "1 once the GPU has failed, until a restart.",
        [](const Device& d) { return d.lost ? 1 : 0; });
  counter("fisherd_device_kernel_seconds_total", "Time that the GPU computed.",
          [](const Device& d) { return d.stats.kernel_seconds; });
  counter("fisherd_device_copy_seconds_total", "Time that copies between host and GPU took.",
          [](const Device& d) { return d.stats.copy_seconds; });
  counter("fisherd_device_received_bytes_total", "Bytes that were copied to the GPU.",
          [](const Device& d) { return d.stats.bytes_to_device; });
  counter("fisherd_device_sent_bytes_total", "Bytes that were copied from it.",
          [](const Device& d) { return d.stats.bytes_from_device; });
}

}  // namespace

std::string Metrics::Text() {
  const core::FactorRegistry& registry = *sources_.registry;
  Families families;
  families.Gauge("fisherd_build_info", "1; what this server is.", 1,
                 {{"version", kVersion},
                  {"build_type", kBuildType},
                  {"backend", sources_.backend},
                  {"kernels", std::string(kernels::CurrentTarget())}});
  families.Gauge("fisherd_ready", "1 while the server serves.",
                 sources_.readiness->why_not().empty() ? 1 : 0);
  AddFactors(registry, families);
  AddActivity(registry.activity(), families);
  AddBudget("state", "factors and results", registry.state_budget(), families);
  AddBudget("batch", "batches of open steps", registry.batch_budget(), families);
  if (sources_.devices != nullptr) AddDevices(*sources_.devices, registry.placement(), families);
  families.Counter("fisherd_compute_busy_seconds_total", "Time that compute threads worked.",
                   absl::ToDoubleSeconds(sources_.pool->busy()));
  families.Gauge("fisherd_compute_threads", "Threads that compute.", sources_.pool->threads());
  if (sources_.sessions != nullptr) {
    families.Gauge("fisherd_update_streams", "Update streams that are open.",
                   static_cast<double>(sources_.sessions->streams()));
    families.Gauge("fisherd_update_streams_limit", "Update streams that may be open.",
                   static_cast<double>(sources_.sessions->max_streams()));
  }
  if (sources_.guard != nullptr) {
    constexpr char kFailures[] = "fisherd_auth_failures_total";
    constexpr char kFailuresHelp[] = "Calls of nobody who is known, or of who may not.";
    families.Counter(kFailures, kFailuresHelp,
                     static_cast<double>(sources_.guard->unauthenticated()),
                     {{"kind", "unauthenticated"}});
    families.Counter(kFailures, kFailuresHelp, static_cast<double>(sources_.guard->denied()),
                     {{"kind", "denied"}});
  }
  if (const auto expiry = ExpiryOf(sources_.tls_certificate)) {
    families.Gauge("fisherd_tls_certificate_expiry_timestamp_seconds",
                   "When the server's certificate ends.",
                   absl::ToDoubleSeconds(*expiry - absl::UnixEpoch()));
  }
  if (sources_.store != nullptr) AddStore(*sources_.store, families);
  AddFactorGauges(factors_.Get(), families);
  if (sources_.calls != nullptr) AddCalls(*sources_.calls, families);
  AddProcess(families);
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families.all());
  return text.str();
}

}  // namespace fisherd::server
