#include "core/factor.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/factor_room.h"
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

absl::StatusOr<std::shared_ptr<Factor>> Factor::Restore(const FactorImage& image,
                                                        const StateFill& fill,
                                                        const FactorEnvironment& environment) {
  auto made = Create(image.name, image.spec, image.version.incarnation, environment);
  if (!made.ok()) return made.status();
  Factor& factor = **made;
  factor.restored_ = true;
  MutexLock lock(&factor.mutex_);
  StateVersion& state = *factor.current_;
  if (absl::Status status = fill(*factor.kind_, *environment.backend, *state.matrix);
      !status.ok()) {
    return status;
  }
  state.version = image.version;
  if (state.version.step == 0) state.version.epoch = environment.epoch;  // nobody has committed it
  factor.AdoptLocked(image, state);
  for (const SavedResult& result : image.results) {
    ByteGrant reserve;
    if (IsCached(result.op)) {
      auto grant = environment.state_budget->TryTake(factor.kind_->state_shape().bytes());
      if (!grant.has_value()) {
        return StateBudgetExhausted(factor.kind_->state_shape(), *environment.state_budget);
      }
      reserve = *std::move(grant);
    }
    factor.results_.Add(result.op, result.policy, std::move(reserve))->cached =
        factor.AdoptResult(result.cached);
  }
  return made;
}

// Where the backend keeps results; null if it cannot: it is computed anew.
std::shared_ptr<const CachedResult> Factor::AdoptResult(
    std::shared_ptr<const CachedResult> result) const {
  if (result == nullptr || !on_device_) return result;
  auto adopted = std::make_shared<CachedResult>();
  adopted->matrix = environment_.backend->NewMatrix(result->matrix->shape());
  if (adopted->matrix == nullptr || !adopted->matrix->CopyFrom(*result->matrix).ok()) {
    return nullptr;
  }
  adopted->version = result->version;
  adopted->total_weight = result->total_weight;
  adopted->damping = result->damping;
  return adopted;
}

// All of an image but its version, its results and its elements.
void Factor::AdoptLocked(const FactorImage& image, StateVersion& state) {
  state.total_weight = image.total_weight;
  state.bound = image.bound;
  state.label = image.label;
  lanes_.resize(image.ledgers.size(), lanes_[0]);
  active_towers_ = image.plan.At(std::numeric_limits<int64_t>::max());
  towers_.resize(
      std::max<size_t>({towers_.size(), image.ledgers.size(),
                        static_cast<size_t>(image.plan.MostFrom(image.ledgers[0].next()))}));
  for (size_t i = 0; i < image.ledgers.size(); ++i) {
    Lane& lane = lanes_[i];
    lane.ledger = image.ledgers[i];
    lane.gather =
        StepGather(asynchronous() ? TowerPlan(1) : image.plan, spec_.window, lane.ledger.next());
    lane.durable = lane.ledger.next() - 1;
    state.steps_committed += lane.ledger.steps_committed();
  }
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
      lanes_(NewLanes()),
      towers_(spec.towers),
      active_towers_(spec.towers),
      current_(InitialVersion(incarnation)),
      on_device_(current_ != nullptr && current_->matrix->device() != nullptr),
      pin_reserve_(std::move(pin_reserve)) {}

std::shared_ptr<StateVersion> Factor::InitialVersion(uint64_t incarnation) const {
  const double value = spec_.initial_covariance == InitialCovariance::kOnes ? 1 : 0;
  auto version = std::make_shared<StateVersion>();
  version->version = {.incarnation = incarnation, .epoch = environment_.epoch, .step = 0};
  version->bound = value;
  version->matrix = environment_.backend->NewMatrix(kind_->state_shape());
  if (version->matrix == nullptr || !version->matrix->Fill(value).ok()) return nullptr;
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

Progress Factor::GetProgress(int tower, int64_t missed_from) const {
  MutexLock lock(&mutex_);
  return ProgressLocked(tower, missed_from);
}

Progress Factor::ProgressLocked(int tower, int64_t missed_from) const {
  Progress progress{.incarnation = incarnation_,
                    .epoch = environment_.epoch,
                    .window = spec_.window,
                    .missed = {},
                    .deleted = retired_};
  if (std::cmp_greater_equal(tower, towers_.size())) return progress;
  const Lane& lane = LaneOf(tower);
  const StepGather& gather = lane.gather;
  progress.next = gather.next();
  progress.towers = asynchronous() ? active_towers_ : gather.plan().At(progress.next);
  progress.durable = lane.durable;
  progress.open_through = gather.open_through();
  progress.missed = MissedBy(lane, IndexOf(tower), missed_from);
  progress.first =
      tower >= TowersLocked() ? 0 : gather.plan().FirstOf(IndexOf(tower), progress.next);
  return progress;
}

std::vector<StepRun> Factor::MissedBy(const Lane& lane, int index, int64_t from) const {
  std::vector<StepRun> missed = lane.ledger.Missed(from, index);
  // Whole steps of fewer towers, too: a batch of another may have been on its way when SetTowers
  // came.
  for (const auto& [first, last] :
       lane.gather.plan().StepsWithout(index, from, lane.gather.next() - 1)) {
    missed.push_back({first, last, StepOutcome::kPartial});
  }
  std::sort(missed.begin(), missed.end(),
            [](const StepRun& a, const StepRun& b) { return a.first < b.first; });
  return missed;
}

StepOutcome Factor::OutcomeOf(int tower, int64_t step) const {
  MutexLock lock(&mutex_);
  const StepRun* run = LaneOf(tower).ledger.Find(step);
  return run != nullptr ? run->outcome : StepOutcome::kWhole;
}

int Factor::towers() const {
  MutexLock lock(&mutex_);
  return TowersLocked();
}

FactorEvent Factor::EventLocked(FactorEventKind kind) const {
  return {.kind = kind,
          .factor = name_,
          .version = current_->version,
          .next = NextLocked(),
          .durable = DurableLocked(),
          .towers = TowersLocked()};
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
  return tower >= 0 && std::cmp_less(tower, towers_.size()) &&
         towers_[tower].stream.get() == stream;
}

int64_t Factor::NextLocked() const {
  return asynchronous() ? current_->version.step + 1 : lanes_[0].gather.next();
}

int64_t Factor::DurableLocked() const {
  int64_t durable = 0;
  for (const Lane& lane : lanes_) durable += lane.durable;
  return durable;
}

bool Factor::HasEnded(int64_t step) const { return step < NextLocked(); }

// What an incarnation's end takes with it.
void Factor::ResetLocked(Aftermath& after) {
  NotifyAll(after);
  Room room(*this);
  for (Lane& lane : lanes_) {
    lane.gather.CloseAll(room);
    for (auto& [step, batches] : lane.batches) {
      std::move(batches.begin(), batches.end(), std::back_inserter(after.dropped));
    }
  }
  lanes_ = NewLanes();
  towers_.assign(spec_.towers, {});
  active_towers_ = spec_.towers;
  to_look_at_.clear();
  in_place_ = false;
  results_.Invalidate();
}

absl::Status Factor::Reset(uint64_t incarnation) {
  std::shared_ptr<StateVersion> fresh = InitialVersion(incarnation);
  if (fresh == nullptr) {
    return StateBudgetExhausted(kind_->state_shape(), *environment_.state_budget);
  }
  return ReplaceState(incarnation, std::move(fresh), nullptr);
}

absl::Status Factor::Become(const FactorImage& image, std::unique_ptr<Matrix> state) {
  if (on_device_) {
    std::unique_ptr<Matrix> moved = environment_.backend->NewMatrix(state->shape());
    if (moved == nullptr) return StateBudgetExhausted(state->shape(), *environment_.state_budget);
    if (absl::Status status = moved->CopyFrom(*state); !status.ok()) return status;
    state = std::move(moved);
  }
  auto fresh = std::make_shared<StateVersion>();
  fresh->version = image.version;
  fresh->matrix = std::move(state);
  return ReplaceState(image.version.incarnation, std::move(fresh), &image);
}

// An incarnation ends and another begins: as the image says, or anew.
absl::Status Factor::ReplaceState(uint64_t incarnation, std::shared_ptr<StateVersion> fresh,
                                  const FactorImage* image) {
  Aftermath after;  // `fresh`, too, is freed after the lock
  {
    MutexLock lock(&mutex_);
    if (retired_) return OldIncarnation(incarnation_);
    if (incarnation < incarnation_) return absl::OkStatus();  // another reset has come after this
    incarnation_ = incarnation;
    ResetLocked(after);
    if (image != nullptr) AdoptLocked(*image, *fresh);
    if (current_->pins > 0) older_pinned_.push_back(current_);
    current_.swap(fresh);
    WakeReads();
    environment_.watchers->Publish(EventLocked(FactorEventKind::kReset));
  }
  Settle(std::move(after));
  return absl::OkStatus();
}

void Factor::Retire() {
  Aftermath after;
  {
    MutexLock lock(&mutex_);
    retired_ = true;
    ResetLocked(after);
    WakeReads();
    environment_.watchers->Publish(EventLocked(FactorEventKind::kDeleted));
  }
  Settle(std::move(after));
}

FactorInfo Factor::Describe() const {
  MutexLock lock(&mutex_);
  const MatrixShape shape = kind_->state_shape();
  FactorInfo info{.name = name_,
                  .spec = spec_,
                  .shape = shape,
                  .backend = environment_.backend->name(),
                  .version = current_->version,
                  .steps_committed = current_->steps_committed,
                  .next = NextLocked(),
                  .durable = DurableLocked(),
                  .total_weight = current_->total_weight,
                  .label = current_->label,
                  .updated = updated_,
                  .state_bytes = shape.bytes(),
                  .pinned_bytes = static_cast<int64_t>(older_pinned_.size()) * shape.bytes(),
                  .result_bytes = 0,
                  .estimated_bytes = 2 * shape.bytes(),
                  .towers = {},
                  .registrations = {}};
  for (const Lane& lane : lanes_) {
    info.steps_failed += lane.ledger.steps_failed();
    info.steps_partial += lane.ledger.steps_partial();
    info.held_batches += lane.gather.BatchesHeld();
    info.held_bytes += lane.gather.bytes();
  }
  info.open_through = asynchronous() ? info.next - 1 : lanes_[0].gather.open_through();
  for (int t = 0; t < TowersLocked(); ++t) {
    info.towers.push_back({.claimed = towers_[t].stream != nullptr,
                           .received_through = LaneOf(t).gather.ReceivedThrough(IndexOf(t))});
  }
  for (const auto& registration : results_.all()) {
    info.registrations.push_back(InfoOf(*registration));
    info.result_bytes += registration->cached != nullptr ? shape.bytes() : 0;
    info.estimated_bytes += registration->reserve.bytes();
  }
  return info;
}

}  // namespace fisherd::core
