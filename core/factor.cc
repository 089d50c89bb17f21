#include "core/factor.h"

#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::core {
namespace {

absl::Status StateBudgetExhausted(const MatrixShape& shape, const ByteBudget& budget) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrFormat(
          "a state of %d x %d %s needs %d bytes, and as many while a version is pinned: "
          "%d in all; the state budget is %d bytes, of which %d are left",
          shape.rows, shape.cols, NameOf(shape.dtype), shape.bytes(), 2 * shape.bytes(),
          budget.limit(), budget.limit() - budget.used()),
      {.reason = std::string(reason::kStateBudget),
       .metadata = {{"estimated_bytes", absl::StrFormat("%d", 2 * shape.bytes())}},
       .retry_after = {}});
}

}  // namespace

absl::StatusOr<std::shared_ptr<Factor>> Factor::Create(std::string name, const FactorSpec& spec,
                                                       uint64_t incarnation,
                                                       const FactorEnvironment& environment) {
  absl::StatusOr<std::unique_ptr<const Kind>> kind = MakeKind(spec);
  if (!kind.ok()) return kind.status();
  const MatrixShape shape = (*kind)->state_shape();
  std::optional<ByteGrant> state = environment.state_budget->TryTake(shape.bytes());
  std::optional<ByteGrant> pinned = environment.state_budget->TryTake(shape.bytes());
  if (!state.has_value() || !pinned.has_value()) {
    state.reset();
    pinned.reset();
    return StateBudgetExhausted(shape, *environment.state_budget);
  }
  std::shared_ptr<Factor> factor(new Factor(std::move(name), spec, *std::move(kind), incarnation,
                                            environment, *std::move(state), *std::move(pinned)));
  MutexLock lock(&factor->mutex_);
  if (factor->current_ == nullptr) return StateBudgetExhausted(shape, *environment.state_budget);
  return factor;
}

Factor::Factor(std::string name, const FactorSpec& spec, std::unique_ptr<const Kind> kind,
               uint64_t incarnation, const FactorEnvironment& environment, ByteGrant state_grant,
               ByteGrant pin_reserve)
    : name_(std::move(name)),
      spec_(spec),
      kind_(std::move(kind)),
      environment_(environment),
      state_grant_(std::move(state_grant)),
      incarnation_(incarnation),
      gather_(spec.towers, environment.window),
      towers_(spec.towers),
      current_(InitialVersion(incarnation)),
      pin_reserve_(std::move(pin_reserve)) {}

std::shared_ptr<StateVersion> Factor::InitialVersion(uint64_t incarnation) const {
  const double value = spec_.initial_covariance == InitialCovariance::kOnes ? 1 : 0;
  auto version = std::make_shared<StateVersion>();
  version->version = {.incarnation = incarnation, .epoch = environment_.epoch, .step = 0};
  version->bound = value;
  version->matrix = Matrix::New(kind_->state_shape());
  if (version->matrix == nullptr) return nullptr;
  version->matrix->Fill(value);
  return version;
}

absl::Status Factor::OldIncarnation(uint64_t incarnation) const {
  if (retired_) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kOldIncarnation,
                     absl::StrFormat("factor \"%s\" has been deleted", name_), {{"factor", name_}});
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kOldIncarnation,
      absl::StrFormat(
          "incarnation %d of factor \"%s\" has ended; it is now at incarnation %d: open "
          "the tower anew, or read again",
          incarnation, name_, incarnation_),
      {{"factor", name_}, {"field", "incarnation"}});
}

Progress Factor::GetProgress(int64_t missed_from) const {
  MutexLock lock(&mutex_);
  return ProgressLocked(missed_from);
}

Progress Factor::ProgressLocked(int64_t missed_from) const {
  const int64_t next = ledger_.next();
  return {.incarnation = incarnation_,
          .epoch = environment_.epoch,
          .towers = gather_.towers(),
          .next = next,
          .durable = next - 1,
          .open_through = next - 1 + gather_.window(),
          .window = gather_.window(),
          .missed = ledger_.NotWhole(missed_from),
          .deleted = retired_};
}

FactorEvent Factor::EventLocked(FactorEventKind kind) const {
  return {.kind = kind,
          .factor = name_,
          .version = current_->version,
          .next = ledger_.next(),
          .durable = ledger_.next() - 1,
          .towers = gather_.towers()};
}

void Factor::Present(Watcher& watcher) const {
  MutexLock lock(&mutex_);
  if (!retired_) watcher.Present(EventLocked(FactorEventKind::kPresent));
}

void Factor::TellCreated() const {
  MutexLock lock(&mutex_);
  if (environment_.watchers->watched()) {
    environment_.watchers->Publish(EventLocked(FactorEventKind::kCreated));
  }
}

bool Factor::IsOwner(int tower, const ProgressListener* stream) const {
  MutexLock lock(&mutex_);
  return tower >= 0 && tower < gather_.towers() && towers_[tower].stream.get() == stream;
}

Factor::Listeners Factor::ListenersLocked() const {
  Listeners listeners;
  for (const Tower& tower : towers_) {
    if (tower.stream != nullptr) listeners.insert(tower.stream);
  }
  return listeners;
}

void Factor::Notify(const Listeners& listeners) {
  const std::shared_ptr<Factor> self = shared_from_this();
  for (const auto& listener : listeners) listener->OnProgress(self);
}

absl::Status Factor::Reset(uint64_t incarnation) {
  std::shared_ptr<StateVersion> fresh = InitialVersion(incarnation);
  if (fresh == nullptr) {
    return StateBudgetExhausted(kind_->state_shape(), *environment_.state_budget);
  }
  // What ends here is freed after the lock.
  std::map<int64_t, OpenStep> dropped;
  Listeners listeners;
  {
    MutexLock lock(&mutex_);
    if (retired_) return OldIncarnation(incarnation_);
    incarnation_ = incarnation;
    gather_ = StepGather(spec_.towers, environment_.window);
    ledger_ = Ledger();
    dropped.swap(open_steps_);
    listeners = ListenersLocked();
    towers_.assign(spec_.towers, {});
    if (current_->pins > 0) older_pinned_.push_back(current_);
    current_.swap(fresh);
    in_place_ = false;
    results_.Invalidate();
    WakeReads();
    environment_.watchers->Publish(EventLocked(FactorEventKind::kReset));
  }
  Notify(listeners);
  return absl::OkStatus();
}

void Factor::Retire() {
  std::map<int64_t, OpenStep> dropped;
  Listeners listeners;
  {
    MutexLock lock(&mutex_);
    retired_ = true;
    gather_ = StepGather(spec_.towers, environment_.window);
    dropped.swap(open_steps_);
    listeners = ListenersLocked();
    towers_.assign(spec_.towers, {});
    results_.Invalidate();
    WakeReads();
    environment_.watchers->Publish(EventLocked(FactorEventKind::kDeleted));
  }
  Notify(listeners);
}

FactorInfo Factor::Describe() const {
  MutexLock lock(&mutex_);
  const MatrixShape shape = kind_->state_shape();
  FactorInfo info{.name = name_,
                  .spec = spec_,
                  .shape = shape,
                  .version = current_->version,
                  .steps_committed = current_->steps_committed,
                  .steps_failed = ledger_.steps_failed(),
                  .next = ledger_.next(),
                  .durable = ledger_.next() - 1,
                  .total_weight = current_->total_weight,
                  .label = current_->label,
                  .state_bytes = shape.bytes(),
                  .pinned_bytes = static_cast<int64_t>(older_pinned_.size()) * shape.bytes(),
                  .result_bytes = 0,
                  .estimated_bytes = 2 * shape.bytes(),
                  .held_batches = gather_.BatchesHeld(),
                  .held_bytes = 0,
                  .towers = {},
                  .registrations = {}};
  for (const auto& [step, open] : open_steps_) {
    for (const ByteGrant& grant : open.grants) info.held_bytes += grant.bytes();
  }
  for (int t = 0; t < gather_.towers(); ++t) {
    info.towers.push_back(
        {.claimed = towers_[t].stream != nullptr, .received_through = gather_.ReceivedThrough(t)});
  }
  for (const auto& registration : results_.all()) {
    info.registrations.push_back(InfoOf(*registration));
    info.result_bytes += registration->cached != nullptr ? shape.bytes() : 0;
    info.estimated_bytes += registration->reserve.bytes();
  }
  return info;
}

}  // namespace fisherd::core
