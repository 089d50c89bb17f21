// Reads and registered results: the part of a factor that follows SPEC §3 and §4.

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/factor.h"

namespace fisherd::core {
namespace {

absl::Status CheckPolicy(const RefreshPolicy& policy) {
  const bool every = policy.kind == RefreshKind::kEveryNSteps;
  if (every ? policy.steps >= 1 : policy.steps == 0) return absl::OkStatus();
  return BadArgument("policy.steps",
                     absl::StrFormat("policy.steps is %d; expected %s", policy.steps,
                                     every ? "at least 1 with EVERY_N_STEPS"
                                           : "0 unless the policy is EVERY_N_STEPS"));
}

absl::Status CheckRegistrable(const OperatorSpec& op) {
  if (absl::Status status = CheckOperator(op); !status.ok()) return status;
  if (op.kind == OperatorKind::kCovariance) {
    return BadArgument("operator",
                       "operator is the covariance, which is always at hand; expected matpower, "
                       "cholesky or cholesky_inverse");
  }
  if (!std::holds_alternative<std::string>(op.damping)) {
    return BadArgument(
        "damping", "damping is a value; a registered result needs the name of a damping function");
  }
  return absl::OkStatus();
}

absl::Status RegistrationNotFound(const OperatorSpec& op) {
  return MakeError(absl::StatusCode::kNotFound, reason::kRegistrationNotFound,
                   absl::StrFormat("%s is not registered", Describe(op)), {{"field", "operator"}});
}

constexpr size_t kMaxOlderPinned = 2;

}  // namespace

uint64_t Factor::StartRead(const ReadRequest& request, ReadCallback callback) {
  MutexLock lock(&mutex_);
  const uint64_t id = ++last_read_;
  reads_[id] = {.request = request, .callback = std::move(callback)};
  environment_.pool->Schedule([self = shared_from_this(), id] { self->RunRead(id); });
  return id;
}

void Factor::CancelRead(uint64_t id) {
  MutexLock lock(&mutex_);
  const auto it = reads_.find(id);
  if (it == reads_.end()) return;
  it->second.cancelled = true;
  if (std::exchange(it->second.waiting, false)) {
    environment_.pool->Schedule([self = shared_from_this(), id] { self->RunRead(id); });
  }
}

// Schedules the waiting reads that may now be served; those that cannot be wait on. Images too.
void Factor::WakeReads() {
  if (!images_.empty()) {
    environment_.pool->Schedule([self = shared_from_this()] { self->RunImages(); });
  }
  const bool usable = !retired_ && environment_.backend->Check().ok();
  for (auto& [id, read] : reads_) {
    const auto& min = read.request.min_version;
    const bool too_early =
        usable && min.has_value() && min->incarnation == incarnation_ && !HasEnded(min->step);
    if (!read.waiting || too_early) continue;
    read.waiting = false;
    environment_.pool->Schedule([self = shared_from_this(), id = id] { self->RunRead(id); });
  }
}

void Factor::RunRead(uint64_t id) {
  ReadRequest request;
  {
    MutexLock lock(&mutex_);
    request = reads_.at(id).request;
  }
  absl::StatusOr<double> damping = 0.0;
  if (request.op.kind != OperatorKind::kCovariance) {
    damping = environment_.dampings->Resolve(request.op.damping);
  }

  absl::StatusOr<std::optional<ReadSource>> source = std::nullopt;
  ReadCallback callback;
  {
    MutexLock lock(&mutex_);
    PendingRead& read = reads_.at(id);
    if (read.cancelled) {
      source = absl::CancelledError("the read was cancelled");
    } else if (!damping.ok()) {
      source = damping.status();
    } else {
      source = PlanRead(request, request.op.kind == OperatorKind::kCovariance
                                     ? std::nullopt
                                     : std::optional<double>(*damping));
    }
    if (source.ok() && !source->has_value()) {
      read.waiting = true;
      return;
    }
    callback = std::move(read.callback);
    reads_.erase(id);
  }
  // A statement of its own: nothing but the result holds the version when the reader has it.
  absl::StatusOr<ReadResult> result =
      source.ok() ? Serve(request, **std::move(source)) : source.status();
  Activity& activity = *environment_.activity;
  ++(!result.ok()            ? activity.reads_failed
     : result->op == nullptr ? activity.reads_unchanged
                             : activity.reads_full);
  callback(std::move(result));
}

absl::StatusOr<std::optional<Factor::ReadSource>> Factor::PlanRead(const ReadRequest& request,
                                                                   std::optional<double> damping) {
  const auto& min = request.min_version;
  if (retired_) return OldIncarnation(incarnation_);
  if (absl::Status status = environment_.backend->Check(); !status.ok()) return status;
  if (min.has_value()) {
    if (min->incarnation != incarnation_) return OldIncarnation(min->incarnation);
    if (!HasEnded(min->step)) return std::nullopt;
  }
  ReadSource source;
  source.result.current_version = current_->version;
  source.result.steps_committed = current_->steps_committed;
  source.result.next = NextLocked();
  source.result.damping = damping;

  const std::shared_ptr<Registration> registration =
      IsCached(request.op) ? results_.Find(request.op) : nullptr;
  if (registration != nullptr) {
    if (registration->computing) return std::nullopt;
    const std::shared_ptr<const CachedResult>& cached = registration->cached;
    const bool current =
        cached != nullptr && cached->version == current_->version && cached->damping == damping;
    if (request.refresh ? current : IsFresh(*registration, current_->version, *damping)) {
      source.cached = cached;
      return source;
    }
  }
  if (in_place_) return std::nullopt;
  source.pin = registration != nullptr ? Pin(current_) : PinFor(request);
  if (source.pin == nullptr) return std::nullopt;
  if (registration != nullptr) {
    registration->computing = true;
    source.to_compute = registration;
  }
  return source;
}

// At most two older versions are pinned: a read beyond them joins the newest of them, if that is
// new enough for it, and waits otherwise.
std::shared_ptr<const StateVersion> Factor::PinFor(const ReadRequest& request) {
  if (older_pinned_.size() < kMaxOlderPinned) {
    if (std::shared_ptr<const StateVersion> pin = Pin(current_)) return pin;
  }
  const std::shared_ptr<StateVersion>& newest = older_pinned_.back();
  const bool new_enough =
      newest->version.incarnation == incarnation_ &&
      (!request.min_version.has_value() || newest->version.step >= request.min_version->step);
  return new_enough ? Pin(newest) : nullptr;
}

// Null if the budget has no room for one more pinned version. The pin is let go outside the lock
// only.
std::shared_ptr<const StateVersion> Factor::Pin(const std::shared_ptr<StateVersion>& version) {
  if (version->pins == 0) {
    if (pin_reserve_.bytes() > 0) {
      version->pin_grant = std::move(pin_reserve_);
    } else {
      std::optional<ByteGrant> grant =
          environment_.state_budget->TryTake(version->matrix->shape().bytes());
      if (!grant.has_value()) return nullptr;
      version->pin_grant = *std::move(grant);
    }
  }
  ++version->pins;
  return {version.get(),
          [self = shared_from_this(), version](const StateVersion*) { self->Unpin(version); }};
}

void Factor::Unpin(const std::shared_ptr<StateVersion>& version) {
  std::shared_ptr<StateVersion> released;  // freed after the lock
  ByteGrant grant;
  MutexLock lock(&mutex_);
  if (--version->pins > 0) return;
  grant = std::move(version->pin_grant);
  if (pin_reserve_.bytes() == 0) std::swap(grant, pin_reserve_);
  const auto it = std::find(older_pinned_.begin(), older_pinned_.end(), version);
  if (it != older_pinned_.end()) {
    released = std::move(*it);
    older_pinned_.erase(it);
  }
  WakeReads();
}

CovarianceView Factor::ViewOf(const std::shared_ptr<const StateVersion>& version) const {
  const bool debias = spec_.zero_debias && version->steps_committed > 0;
  return {.matrix = std::shared_ptr<const Matrix>(version, version->matrix.get()),
          .divisor = debias ? version->total_weight : 1,
          .least = version->steps_committed == 0 ? version->bound : 0,  // the same value everywhere
          .most = version->bound};
}

absl::StatusOr<ReadResult> Factor::Serve(const ReadRequest& request, ReadSource source) {
  ReadResult result = std::move(source.result);
  const DataType own = spec_.dtype;
  const DataType dtype = request.dtype == DataType::kUnspecified ? own : request.dtype;
  CovarianceView view;
  std::optional<LinearOperatorDiag::Power> power;
  if (source.pin != nullptr) {
    view = ViewOf(source.pin);
    result.version = source.pin->version;
    result.total_weight = source.pin->total_weight;
    if (result.damping.has_value()) {
      power = {.exponent = request.op.power(), .damping = *result.damping};
    }
  }
  if (source.to_compute != nullptr) {
    absl::StatusOr<std::shared_ptr<const CachedResult>> computed =
        ComputeResult(source.to_compute, *source.pin, view, *result.damping);
    if (!computed.ok()) return computed.status();
    source.cached =
        *std::move(computed);  // null: no room to keep it, so it is read from the version
  }
  if (source.cached != nullptr) {
    const auto& cached = source.cached;
    view = {.matrix = std::shared_ptr<const Matrix>(cached, cached->matrix.get()), .divisor = 1};
    power.reset();
    result.version = cached->version;
    result.total_weight = cached->total_weight;
    result.damping = cached->damping;
    result.cached = true;
  }
  if (request.if_version_not == result.version) return result;
  result.op = kind_->Read(std::move(view), power);
  if (result.cached && dtype == own) return result;  // has been checked when it was computed
  if (absl::Status status = result.op->CheckFinite(dtype); !status.ok()) return status;
  return result;
}

// Computes a registered result and keeps it, unless the factor has been reset meanwhile. Null if
// the budget has no room beside a reader's older result. Ends `computing`.
absl::StatusOr<std::shared_ptr<const CachedResult>> Factor::ComputeResult(
    const std::shared_ptr<Registration>& registration, const StateVersion& version,
    CovarianceView view, double damping) {
  const MatrixShape shape = kind_->state_shape();
  auto result = std::make_shared<CachedResult>();
  result->version = version.version;
  result->total_weight = version.total_weight;
  result->damping = damping;
  bool room = true;
  std::shared_ptr<const CachedResult> stale;  // freed before the new one is made
  {
    MutexLock lock(&mutex_);
    stale = std::move(registration->cached);
  }
  if (stale.use_count() > 1) {
    std::optional<ByteGrant> extra = environment_.state_budget->TryTake(shape.bytes());
    room = extra.has_value();
    if (room) result->extra = *std::move(extra);
  }
  stale.reset();

  const std::shared_ptr<const LinearOperator> op = kind_->Read(
      std::move(view),
      LinearOperatorDiag::Power{.exponent = registration->op.power(), .damping = damping});
  absl::Status status = op->CheckFinite(shape.dtype);
  if (status.ok() && room) result->matrix = environment_.backend->NewMatrix(shape);
  if (result->matrix != nullptr) status = op->Materialize(*result->matrix);
  const bool kept = result->matrix != nullptr && status.ok();
  if (kept) ++environment_.activity->results_computed;

  MutexLock lock(&mutex_);
  registration->computing = false;
  if (kept && version.version.incarnation == incarnation_) registration->cached = result;
  WakeReads();
  if (!status.ok()) return status;
  return kept ? std::shared_ptr<const CachedResult>(std::move(result)) : nullptr;
}

// EVERY_N_STEPS. Runs within the commit's task, before the next step: the current version stays as
// it is without a pin.
void Factor::RefreshDueResults() {
  std::shared_ptr<const StateVersion> version;
  std::vector<std::shared_ptr<Registration>> due;
  {
    MutexLock lock(&mutex_);
    version = current_;
    for (const auto& registration : results_.all()) {
      if (registration->computing || !IsDue(*registration, version->steps_committed)) continue;
      registration->computing = true;
      due.push_back(registration);
    }
  }
  for (const auto& registration : due) {
    // What cannot be computed is left empty, so that the next read tells its reader why.
    const absl::StatusOr<double> damping = environment_.dampings->Resolve(registration->op.damping);
    if (damping.ok()) {
      ComputeResult(registration, *version, ViewOf(version), *damping).IgnoreError();
      continue;
    }
    MutexLock lock(&mutex_);
    registration->computing = false;
    registration->cached = nullptr;
    WakeReads();
  }
}

absl::StatusOr<RegistrationInfo> Factor::Register(const OperatorSpec& op,
                                                  const RefreshPolicy& policy) {
  if (absl::Status status = CheckRegistrable(op); !status.ok()) return status;
  if (absl::Status status = CheckPolicy(policy); !status.ok()) return status;
  if (absl::StatusOr<double> damping = environment_.dampings->Resolve(op.damping); !damping.ok()) {
    return damping.status();
  }
  MutexLock lock(&mutex_);
  if (retired_) return OldIncarnation(incarnation_);
  std::optional<ByteGrant> reserve;
  if (IsCached(op) && results_.Find(op) == nullptr) {
    const int64_t bytes = kind_->state_shape().bytes();
    reserve = environment_.state_budget->TryTake(bytes);
    if (!reserve.has_value()) {
      const ByteBudget& budget = *environment_.state_budget;
      return MakeError(absl::StatusCode::kResourceExhausted, reason::kStateBudget,
                       absl::StrFormat("%s needs %d bytes; the state budget is %d bytes, of which "
                                       "%d are left",
                                       core::Describe(op), bytes, budget.limit(),
                                       budget.limit() - budget.used()),
                       {{"factor", name_}});
    }
  }
  return InfoOf(*results_.Add(op, policy, std::move(reserve).value_or(ByteGrant())));
}

absl::Status Factor::Unregister(const OperatorSpec& op) {
  MutexLock lock(&mutex_);
  if (!results_.Remove(op)) return RegistrationNotFound(op);
  WakeReads();
  return absl::OkStatus();
}

void Factor::UpdateInverses(std::function<void(absl::StatusOr<int>)> callback) {
  struct Update {
    Mutex mutex;
    int left ABSL_GUARDED_BY(mutex) = 0;
    absl::Status first_error ABSL_GUARDED_BY(mutex);
  };
  std::vector<OperatorSpec> ops;
  {
    MutexLock lock(&mutex_);
    for (const auto& registration : results_.all()) {
      if (IsCached(registration->op)) ops.push_back(registration->op);
    }
  }
  const int count = static_cast<int>(ops.size());
  if (count == 0) {
    environment_.pool->Schedule([callback = std::move(callback)] { callback(0); });
    return;
  }
  auto update = std::make_shared<Update>();
  {
    MutexLock lock(&update->mutex);
    update->left = count;
  }
  for (OperatorSpec& op : ops) {
    ReadRequest request{.op = std::move(op), .refresh = true};
    StartRead(request, [update, count, callback](const absl::StatusOr<ReadResult>& result) {
      absl::Status error;
      {
        MutexLock lock(&update->mutex);
        update->first_error.Update(result.status());
        if (--update->left > 0) return;
        error = update->first_error;
      }
      callback(error.ok() ? absl::StatusOr<int>(count) : error);
    });
  }
}

RegistrationInfo Factor::InfoOf(const Registration& registration) const {
  RegistrationInfo info{.op = registration.op, .policy = registration.policy};
  if (registration.cached != nullptr) {
    info.computed_from = registration.cached->version;
    info.damping = registration.cached->damping;
  }
  return info;
}

}  // namespace fisherd::core
