#include "core/factor_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::core {
namespace {

absl::Status FactorNotFound(std::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, reason::kFactorNotFound,
                   absl::StrFormat("there is no factor %s; create it first", Quote(name)),
                   {{"factor", std::string(name)}});
}

absl::StatusOr<FactorRegistry::Created> Existing(const std::shared_ptr<Factor>& factor,
                                                 const FactorSpec& spec) {
  if (factor->spec() == spec) return FactorRegistry::Created{.factor = factor, .created = false};
  return MakeError(
      absl::StatusCode::kAlreadyExists, reason::kSpecDiffers,
      absl::StrFormat("factor \"%s\" exists with another specification; describe it to "
                      "see which, or choose another name",
                      factor->name()),
      {{"factor", factor->name()}});
}

absl::Status NeedsDataDirectory() {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kNoDataDirectory,
                   "durability is SNAPSHOT or SYNC, and this server keeps everything in memory: "
                   "start it with --data-dir",
                   {{"field", "durability"}});
}

}  // namespace

class FactorRegistry::NameHold {
 public:
  NameHold(FactorRegistry& registry, std::string_view name) : registry_(registry) {
    MutexLock lock(&registry_.mutex_);
    while (registry_.held_.contains(name)) registry_.released_.Wait(&registry_.mutex_);
    held_ = registry_.held_.emplace(name).first;
  }
  ~NameHold() {
    MutexLock lock(&registry_.mutex_);
    registry_.held_.erase(held_);
    registry_.released_.NotifyAll();
  }
  NameHold(const NameHold&) = delete;
  NameHold& operator=(const NameHold&) = delete;

 private:
  FactorRegistry& registry_;
  std::set<std::string, std::less<>>::iterator held_;
};

FactorRegistry::FactorRegistry(const RegistryOptions& options)
    : placement_({options.backend, options.state_budget}, options.devices, options.usual_backend),
      batch_budget_(options.batch_budget),
      watchers_(options.pool),
      environment_{.backend = options.backend,
                   .pool = options.pool,
                   .state_budget = &placement_.host().budget,
                   .batch_budget = &batch_budget_,
                   .dampings = &dampings_,
                   .watchers = &watchers_,
                   .timers = options.timers,
                   .activity = &activity_,
                   .store = options.store,
                   .epoch = options.epoch,
                   .factor_batch_limit = options.factor_batch_limit,
                   .small_work = options.small_work,
                   .recovery_timeout = options.recovery_timeout},
      window_(options.window),
      gather_timeout_(options.gather_timeout),
      durability_(options.durability),
      next_incarnation_(options.first_incarnation) {}

size_t FactorRegistry::damaged() const {
  MutexLock lock(&mutex_);
  return quarantined_.size();
}

absl::Status FactorRegistry::CheckWritable() const {
  return environment_.store == nullptr ? absl::OkStatus() : environment_.store->CheckWritable();
}

absl::Status FactorRegistry::RecordFactor(const FactorImage& image) const {
  return environment_.store == nullptr ? absl::OkStatus() : environment_.store->RecordFactor(image);
}

uint64_t FactorRegistry::NextIncarnation() {
  MutexLock lock(&mutex_);
  return next_incarnation_++;
}

std::shared_ptr<Factor> FactorRegistry::FindOrNull(std::string_view name) const {
  MutexLock lock(&mutex_);
  const auto it = factors_.find(name);
  return it == factors_.end() ? nullptr : it->second;
}

// With what the specification leaves open.
absl::StatusOr<FactorSpec> FactorRegistry::Complete(FactorSpec spec) const {
  if (spec.window == 0) spec.window = window_;
  if (spec.gather_timeout == absl::ZeroDuration()) spec.gather_timeout = gather_timeout_;
  const bool asked = spec.durability > DurabilityLevel::kMemory;
  if (asked && environment_.store == nullptr) return NeedsDataDirectory();
  if (spec.durability == DurabilityLevel::kUnset) spec.durability = durability_;
  return spec;
}

absl::StatusOr<FactorEnvironment> FactorRegistry::EnvironmentFor(const FactorSpec& spec,
                                                                 bool again) {
  const auto kind = MakeKind(spec);
  if (!kind.ok()) return kind.status();
  const int64_t bytes = 2 * (*kind)->state_shape().bytes();  // as Factor::Create takes
  absl::StatusOr<Placement::Home*> home = &placement_.ChooseAgain(spec.backend, bytes);
  if (!again) home = placement_.Choose(spec.backend, bytes);
  if (!home.ok()) return home.status();
  FactorEnvironment environment = environment_;
  if (*home == &placement_.host()) return environment;
  environment.backend = (*home)->backend;
  environment.state_budget = &(*home)->budget;
  environment.factor_batch_limit =
      std::min(environment.factor_batch_limit, environment.backend->step_limit());
  environment.small_work = 0;  // a thread that serves a stream does not wait for a device
  return environment;
}

absl::StatusOr<FactorRegistry::Created> FactorRegistry::Create(std::string_view name,
                                                               FactorSpec wanted) {
  if (absl::Status status = CheckName("name", name); !status.ok()) return status;
  const auto spec = Complete(std::move(wanted));
  if (!spec.ok()) return WithMetadata(spec.status(), "factor", name);
  const NameHold hold(*this, name);
  {
    MutexLock lock(&mutex_);
    if (const auto it = factors_.find(name); it != factors_.end())
      return Existing(it->second, *spec);
    if (const auto it = quarantined_.find(name); it != quarantined_.end()) return it->second;
  }
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  // Without the lock: a large state takes time to allocate.
  const auto environment = EnvironmentFor(*spec, /*again=*/false);
  if (!environment.ok()) return WithMetadata(environment.status(), "factor", name);
  absl::StatusOr<std::shared_ptr<Factor>> factor =
      Factor::Create(std::string(name), *spec, NextIncarnation(), *environment);
  if (!factor.ok()) return WithMetadata(factor.status(), "factor", name);
  if (absl::Status status = RecordFactor((*factor)->Life()); !status.ok()) return status;
  MutexLock lock(&mutex_);
  factors_.emplace(name, *factor);
  (*factor)->TellCreated();
  return Created{.factor = *std::move(factor), .created = true};
}

absl::Status FactorRegistry::Restore(const FactorImage& image, const Factor::StateFill& fill) {
  const auto environment = EnvironmentFor(image.spec, /*again=*/true);
  if (!environment.ok()) return WithMetadata(environment.status(), "factor", image.name);
  auto factor = Factor::Restore(image, fill, *environment);
  if (!factor.ok()) return WithMetadata(factor.status(), "factor", image.name);
  MutexLock lock(&mutex_);
  factors_.emplace(image.name, *std::move(factor));
  return absl::OkStatus();
}

void FactorRegistry::Quarantine(std::string_view name, absl::Status why) {
  MutexLock lock(&mutex_);
  quarantined_.insert_or_assign(std::string(name), std::move(why));
}

absl::StatusOr<std::shared_ptr<Factor>> FactorRegistry::Put(std::string_view name,
                                                            const FactorSpec& wanted,
                                                            const Maker& make) {
  if (absl::Status status = CheckName("name", name); !status.ok()) return status;
  const auto spec = Complete(wanted);
  if (!spec.ok()) return WithMetadata(spec.status(), "factor", name);
  const NameHold hold(*this, name);
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  const std::shared_ptr<Factor> existing = FindOrNull(name);
  if (existing != nullptr) {
    if (auto same = Existing(existing, *spec); !same.ok()) return same.status();
  }
  const uint64_t incarnation = NextIncarnation();
  std::shared_ptr<Factor> factor = existing;
  if (factor == nullptr) {
    const auto environment = EnvironmentFor(*spec, /*again=*/true);
    if (!environment.ok()) return WithMetadata(environment.status(), "factor", name);
    auto made = Factor::Create(std::string(name), *spec, incarnation, *environment);
    if (!made.ok()) return WithMetadata(made.status(), "factor", name);
    factor = *std::move(made);
  }
  absl::StatusOr<Content> content = make(incarnation);
  if (!content.ok()) return WithMetadata(content.status(), "factor", name);
  absl::Status status = factor->Become(content->image, std::move(content->state));
  if (!status.ok() || existing != nullptr) {
    if (!status.ok()) return status;
    return factor;
  }
  MutexLock lock(&mutex_);
  factors_.emplace(name, factor);
  if (const auto it = quarantined_.find(name); it != quarantined_.end()) quarantined_.erase(it);
  factor->TellCreated();
  return factor;
}

absl::StatusOr<std::shared_ptr<Factor>> FactorRegistry::Find(std::string_view name) const {
  if (absl::Status status = CheckName("factor", name); !status.ok()) return status;
  MutexLock lock(&mutex_);
  if (const auto it = factors_.find(name); it != factors_.end()) return it->second;
  if (const auto it = quarantined_.find(name); it != quarantined_.end()) return it->second;
  return FactorNotFound(name);
}

std::vector<std::shared_ptr<Factor>> FactorRegistry::List(std::string_view prefix,
                                                          std::string_view after,
                                                          size_t limit) const {
  std::vector<std::shared_ptr<Factor>> result;
  MutexLock lock(&mutex_);
  auto it = after < prefix ? factors_.lower_bound(prefix) : factors_.upper_bound(after);
  for (; it != factors_.end() && result.size() < limit && it->first.starts_with(prefix); ++it) {
    result.push_back(it->second);
  }
  return result;
}

absl::Status FactorRegistry::Delete(std::string_view name) {
  if (absl::Status status = CheckName("factor", name); !status.ok()) return status;
  const NameHold hold(*this, name);
  const std::shared_ptr<Factor> factor = FindOrNull(name);
  {
    MutexLock lock(&mutex_);
    if (factor == nullptr && !quarantined_.contains(name)) return FactorNotFound(name);
  }
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  if (environment_.store != nullptr) {
    if (absl::Status status = environment_.store->RecordDeletion(name); !status.ok()) return status;
  }
  {
    MutexLock lock(&mutex_);
    if (const auto it = factors_.find(name); it != factors_.end()) factors_.erase(it);
    if (const auto it = quarantined_.find(name); it != quarantined_.end()) quarantined_.erase(it);
  }
  if (factor != nullptr) factor->Retire();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Factor>> FactorRegistry::Reset(std::string_view name) {
  const NameHold hold(*this, name);
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  FactorImage image = (*factor)->Life();
  image.version = {.incarnation = NextIncarnation(), .epoch = environment_.epoch, .step = 0};
  image.plan = TowerPlan(image.spec.towers);
  if (absl::Status status = RecordFactor(image); !status.ok()) return status;
  if (absl::Status status = (*factor)->Reset(image.version.incarnation); !status.ok())
    return status;
  return factor;
}

absl::StatusOr<int64_t> FactorRegistry::SetTowers(std::string_view name, int towers, bool now) {
  const NameHold hold(*this, name);
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  const absl::StatusOr<int64_t> from = (*factor)->SetTowers(towers, now);
  if (!from.ok()) return from;
  if (absl::Status status = RecordFactor((*factor)->Life()); !status.ok()) return status;
  return from;
}

absl::StatusOr<RegistrationInfo> FactorRegistry::Register(std::string_view name,
                                                          const OperatorSpec& op,
                                                          const RefreshPolicy& policy) {
  const NameHold hold(*this, name);
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  absl::StatusOr<RegistrationInfo> registration = (*factor)->Register(op, policy);
  if (!registration.ok()) return registration;
  if (absl::Status status = RecordFactor((*factor)->Life()); !status.ok()) return status;
  return registration;
}

absl::Status FactorRegistry::Unregister(std::string_view name, const OperatorSpec& op) {
  const NameHold hold(*this, name);
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  if (absl::Status status = (*factor)->Unregister(op); !status.ok()) return status;
  return RecordFactor((*factor)->Life());
}

void FactorRegistry::WantDurable(const std::string& name) const {
  if (environment_.store != nullptr) environment_.store->WantDurable(name);
}

absl::Status FactorRegistry::SetDamping(std::string_view name, double value) {
  if (absl::Status status = DampingTable::Check(name, value); !status.ok()) return status;
  if (environment_.store == nullptr) return dampings_.Set(name, value);
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  MutexLock order(&damping_order_);
  absl::Status status = environment_.store->RecordDamping(name, value);
  return status.ok() ? dampings_.Set(name, value) : status;
}

absl::Status FactorRegistry::DeleteDamping(std::string_view name) {
  if (environment_.store == nullptr) return dampings_.Delete(name);
  if (absl::Status status = CheckWritable(); !status.ok()) return status;
  MutexLock order(&damping_order_);
  if (auto value = dampings_.Get(name); !value.ok()) return value.status();
  absl::Status status = environment_.store->RecordDamping(name, std::nullopt);
  return status.ok() ? dampings_.Delete(name) : status;
}

}  // namespace fisherd::core
