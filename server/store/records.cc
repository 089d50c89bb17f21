#include "server/store/records.h"

#include <algorithm>
#include <deque>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/codec.h"
#include "server/store/disk_error.h"

namespace fisherd::server {
namespace {

constexpr std::string_view kEnd("\0", 1);  // of a name in a key

std::string Join(std::initializer_list<std::string_view> parts) {
  std::string joined;
  for (const std::string_view part : parts) joined += part;
  return joined;
}

std::string BigEndianBytes(uint64_t number, int bytes) {
  std::string text(bytes, '\0');
  for (int i = bytes - 1; i >= 0; --i, number >>= 8) text[i] = static_cast<char>(number);
  return text;
}

template <typename Record>
void SetTowers(const core::TowerPlan& plan, Record& record) {
  for (const auto& [from, towers] : plan.changes()) {
    store::v1::TowerChange* const change = record.add_towers();
    change->set_from(from);
    change->set_towers(towers);
  }
}

absl::StatusOr<core::TowerPlan> PlanOf(
    const google::protobuf::RepeatedPtrField<store::v1::TowerChange>& changes) {
  std::deque<core::TowerPlan::Change> plan;
  for (const auto& change : changes) {
    const bool ascends = plan.empty() || change.from() > plan.back().from;
    if (!ascends || change.towers() < 1 || change.towers() > core::kMaxTowers) {
      return Damaged("a plan of towers that cannot be");
    }
    plan.push_back({change.from(), change.towers()});
  }
  if (plan.empty()) return Damaged("no plan of towers");
  return core::TowerPlan(std::move(plan));
}

store::v1::Ledger LedgerRecord(const core::Ledger& ledger) {
  store::v1::Ledger record;
  const core::Ledger::Content& content = ledger.content();
  record.set_next(content.next);
  record.set_floor(content.floor);
  record.set_steps_failed(content.steps_failed);
  record.set_steps_partial(content.steps_partial);
  record.set_steps_lost(content.steps_lost);
  for (const core::StepRun& run : content.runs) *record.add_runs() = ToRecord(run);
  return record;
}

core::Ledger LedgerOf(const store::v1::Ledger& record) {
  core::Ledger::Content content = {.next = record.next(),
                                   .floor = record.floor(),
                                   .steps_failed = record.steps_failed(),
                                   .steps_partial = record.steps_partial(),
                                   .steps_lost = record.steps_lost()};
  for (const auto& run : record.runs()) content.runs.push_back(FromRecord(run));
  return core::Ledger(std::move(content));
}

size_t LedgersOf(const core::FactorSpec& spec, const core::TowerPlan& plan) {
  if (spec.update_mode == core::UpdateMode::kSynchronous) return 1;
  return std::max(spec.towers, plan.MostFrom(1));
}

}  // namespace

std::string DampingKey(std::string_view name) { return Join({"d", name}); }
std::string FactorKey(std::string_view name) { return Join({"f", name}); }

std::string GenerationKey(std::string_view name, uint64_t number) {
  return Join({"g", name, kEnd, BigEndianBytes(number, 8)});
}

std::string OutcomeKey(std::string_view name, uint64_t incarnation, int ledger, int64_t step) {
  return Join({"o", name, kEnd, BigEndianBytes(incarnation, 8), BigEndianBytes(ledger, 4),
               BigEndianBytes(step, 8)});
}

std::string LogKey(std::string_view name, uint64_t incarnation, int64_t ended) {
  return Join({name, kEnd, BigEndianBytes(incarnation, 8), BigEndianBytes(ended, 8)});
}

KeyRange KeysOf(char kind, std::string_view name) {
  const char letter[] = {kind, '\0'};
  const std::string_view prefix = kind == 'l' ? "" : letter;
  return {Join({prefix, name, kEnd}), Join({prefix, name, "\1"})};
}

ParsedKey ParseKey(std::string_view key) {
  const size_t end = key.find('\0');
  if (end == std::string_view::npos) return {key, {}};
  return {key.substr(0, end), key.substr(end + 1)};
}

uint64_t BigEndian(std::string_view bytes) {
  uint64_t number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<unsigned char>(byte);
  return number;
}

store::v1::Factor ToRecord(const core::FactorImage& life) {
  store::v1::Factor record;
  *record.mutable_spec() = ToProto(life.spec);
  record.set_incarnation(life.version.incarnation);
  SetTowers(life.plan, record);
  for (const core::SavedResult& result : life.results) {
    store::v1::Registered* const registered = record.add_registrations();
    *registered->mutable_operator_() = ToProto(result.op);
    *registered->mutable_policy() = ToProto(result.policy);
  }
  return record;
}

store::v1::Run ToRecord(const core::StepRun& run) {
  store::v1::Run record;
  record.set_first(run.first);
  record.set_last(run.last);
  record.set_outcome(ToProto(run.outcome));
  record.mutable_counted()->Add(run.counted.begin(), run.counted.end());
  return record;
}

store::v1::LoggedStep ToRecord(const core::StepRecord& step) {
  store::v1::LoggedStep record;
  record.set_ledger(step.ledger);
  *record.mutable_run() = ToRecord(step.run);
  if (step.state == nullptr && step.batches.empty()) return record;
  record.set_decay(step.parameters.decay);
  record.set_weight(step.parameters.weight);
  for (const std::string& batch : step.batches) record.add_batch_bytes(batch.size());
  *record.mutable_version() = ToProto(step.version);
  record.set_total_weight(step.total_weight);
  record.set_bound(step.bound);
  record.set_label(step.label);
  return record;
}

store::v1::Generation ToGeneration(const core::FactorImage& image) {
  store::v1::Generation record;
  const absl::Time now = absl::Now();
  record.mutable_created()->set_seconds(absl::ToUnixSeconds(now));
  record.mutable_created()->set_nanos(
      static_cast<int32_t>((absl::ToUnixNanos(now) % 1'000'000'000)));
  *record.mutable_spec() = ToProto(image.spec);
  *record.mutable_version() = ToProto(image.version);
  record.set_total_weight(image.total_weight);
  record.set_bound(image.bound);
  record.set_label(image.label);
  SetTowers(image.plan, record);
  for (const core::Ledger& ledger : image.ledgers) *record.add_ledgers() = LedgerRecord(ledger);
  for (const core::SavedResult& saved : image.results) {
    if (saved.cached == nullptr) continue;
    store::v1::Result* const result = record.add_results();
    *result->mutable_operator_() = ToProto(saved.op);
    *result->mutable_version() = ToProto(saved.cached->version);
    result->set_total_weight(saved.cached->total_weight);
    result->set_damping(saved.cached->damping);
  }
  return record;
}

core::StepRun FromRecord(const store::v1::Run& run) {
  core::StepRun result = {.first = run.first(), .last = run.last()};
  switch (run.outcome()) {
    case fisherd::v1::STEP_OUTCOME_WHOLE:
      result.outcome = core::StepOutcome::kWhole;
      break;
    case fisherd::v1::STEP_OUTCOME_PARTIAL:
      result.outcome = core::StepOutcome::kPartial;
      break;
    default:
      result.outcome = core::StepOutcome::kFailed;
  }
  result.counted.assign(run.counted().begin(), run.counted().end());
  return result;
}

absl::StatusOr<core::FactorSpec> FromRecord(const fisherd::v1::FactorSpec& spec) {
  auto result = FromProto(spec, "spec");
  if (!result.ok()) return Damaged(std::string(result.status().message()));
  if (!spec.has_gather_timeout()) result->gather_timeout = absl::InfiniteDuration();
  return result;
}

absl::StatusOr<core::OperatorSpec> FromRecord(const fisherd::v1::Operator& op) {
  auto result = FromProto(op, "operator");
  if (!result.ok()) return Damaged(std::string(result.status().message()));
  return result;
}

absl::StatusOr<core::FactorImage> ToImage(std::string_view name, const store::v1::Factor& factor) {
  core::FactorImage image = {.name = std::string(name)};
  auto spec = FromRecord(factor.spec());
  if (!spec.ok()) return spec.status();
  image.spec = *std::move(spec);
  image.version.incarnation = factor.incarnation();
  auto plan = PlanOf(factor.towers());
  if (!plan.ok()) return plan.status();
  image.plan = *std::move(plan);
  image.ledgers.assign(LedgersOf(image.spec, image.plan), core::Ledger());
  image.bound = image.spec.initial_covariance == core::InitialCovariance::kOnes ? 1 : 0;
  for (const auto& registered : factor.registrations()) {
    const auto op = FromRecord(registered.operator_());
    const auto policy = FromProto(registered.policy(), "policy");
    if (!op.ok() || !policy.ok()) return Damaged("a registration that cannot be");
    image.results.push_back({*op, *policy, nullptr});
  }
  return image;
}

absl::StatusOr<core::FactorImage> ToImage(std::string_view name,
                                          const store::v1::Generation& generation) {
  core::FactorImage image = {.name = std::string(name)};
  auto spec = FromRecord(generation.spec());
  if (!spec.ok()) return spec.status();
  image.spec = *std::move(spec);
  image.version = FromProto(generation.version());
  image.total_weight = generation.total_weight();
  image.bound = generation.bound();
  image.label = generation.label();
  auto plan = PlanOf(generation.towers());
  if (!plan.ok()) return plan.status();
  image.plan = *std::move(plan);
  for (const auto& ledger : generation.ledgers()) image.ledgers.push_back(LedgerOf(ledger));
  if (image.ledgers.size() < LedgersOf(image.spec, image.plan)) return Damaged("too few ledgers");
  return image;
}

}  // namespace fisherd::server
