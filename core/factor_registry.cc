#include "core/factor_registry.h"

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

}  // namespace

FactorRegistry::FactorRegistry(const RegistryOptions& options)
    : state_budget_(options.state_budget),
      batch_budget_(options.batch_budget),
      watchers_(options.pool),
      environment_{.backend = options.backend,
                   .pool = options.pool,
                   .state_budget = &state_budget_,
                   .batch_budget = &batch_budget_,
                   .dampings = &dampings_,
                   .watchers = &watchers_,
                   .timers = options.timers,
                   .store = options.store,
                   .epoch = options.epoch,
                   .factor_batch_limit = options.factor_batch_limit,
                   .small_work = options.small_work,
                   .recovery_timeout = options.recovery_timeout},
      window_(options.window),
      gather_timeout_(options.gather_timeout),
      next_incarnation_(options.first_incarnation) {}

absl::StatusOr<FactorRegistry::Created> FactorRegistry::Create(std::string_view name,
                                                               FactorSpec spec) {
  if (absl::Status status = CheckName("name", name); !status.ok()) return status;
  if (spec.window == 0) spec.window = window_;
  if (spec.gather_timeout == absl::ZeroDuration()) spec.gather_timeout = gather_timeout_;
  uint64_t incarnation;
  {
    MutexLock lock(&mutex_);
    if (const auto it = factors_.find(name); it != factors_.end())
      return Existing(it->second, spec);
    incarnation = next_incarnation_++;
  }
  // Without the lock: a large state takes time to allocate. Of two who create a name, one comes
  // first.
  absl::StatusOr<std::shared_ptr<Factor>> factor =
      Factor::Create(std::string(name), spec, incarnation, environment_);
  if (!factor.ok()) return WithMetadata(factor.status(), "factor", name);
  MutexLock lock(&mutex_);
  const auto [it, created] = factors_.emplace(name, *factor);
  if (!created) return Existing(it->second, spec);
  it->second->TellCreated();
  return Created{.factor = *std::move(factor), .created = true};
}

absl::Status FactorRegistry::Restore(const FactorImage& image) {
  auto factor = Factor::Restore(image, environment_);
  if (!factor.ok()) return WithMetadata(factor.status(), "factor", image.name);
  MutexLock lock(&mutex_);
  factors_.emplace(image.name, *std::move(factor));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Factor>> FactorRegistry::Find(std::string_view name) const {
  if (absl::Status status = CheckName("factor", name); !status.ok()) return status;
  MutexLock lock(&mutex_);
  const auto it = factors_.find(name);
  if (it == factors_.end()) return FactorNotFound(name);
  return it->second;
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
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  {
    MutexLock lock(&mutex_);
    const auto it = factors_.find(name);
    if (it == factors_.end() || it->second != *factor) return FactorNotFound(name);
    factors_.erase(it);
  }
  (*factor)->Retire();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Factor>> FactorRegistry::Reset(std::string_view name) {
  absl::StatusOr<std::shared_ptr<Factor>> factor = Find(name);
  if (!factor.ok()) return factor.status();
  uint64_t incarnation;
  {
    MutexLock lock(&mutex_);
    incarnation = next_incarnation_++;
  }
  if (absl::Status status = (*factor)->Reset(incarnation); !status.ok()) return status;
  return factor;
}

}  // namespace fisherd::core
