// Batches in, steps out: the part of a factor that follows SPEC §5.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/factor.h"

namespace fisherd::core {
namespace {

absl::Status CheckAverage(const BatchHeader& header) {
  if (!header.decay.has_value()) {
    return BadArgument("decay", "decay is missing; expected a number from 0 to 1");
  }
  if (!(*header.decay >= 0 && *header.decay <= 1)) {
    return BadArgument(
        "decay", absl::StrFormat("decay is %g; expected a number from 0 to 1", *header.decay));
  }
  if (!header.weight.has_value() && *header.decay == 1) {
    return BadArgument(
        "weight", "weight is missing; with decay 1 (accumulation) it has no default: send one > 0");
  }
  if (header.weight.has_value() && !(std::isfinite(*header.weight) && *header.weight > 0)) {
    return BadArgument(
        "weight", absl::StrFormat("weight is %g; expected a finite number > 0", *header.weight));
  }
  return absl::OkStatus();
}

StepParameters ParametersOf(const BatchHeader& header) {
  return {.decay = *header.decay, .weight = header.weight.value_or(1 - *header.decay)};
}

}  // namespace

PendingBatch::PendingBatch(std::shared_ptr<Factor> factor, const BatchHeader& header,
                           StepGather::Ticket ticket, std::unique_ptr<Batch> batch)
    : factor_(std::move(factor)),
      incarnation_(header.incarnation),
      step_(header.step),
      tower_(header.tower),
      label_(header.label),
      ticket_(ticket),
      reader_(header.tensors, header.rows, std::move(batch)) {}

PendingBatch::~PendingBatch() {
  if (!done_) factor_->AbandonBatch(*this);
}

absl::Status PendingBatch::Complete(int64_t rows) {
  if (absl::Status status = reader_.Finish(rows); !status.ok()) return status;
  absl::Status status = factor_->CompleteBatch(*this, reader_.Release());
  done_ = status.ok();
  return status;
}

absl::StatusOr<Progress> Factor::Open(int tower, const ClientId& client, int64_t from,
                                      bool take_over, std::shared_ptr<ProgressListener> stream) {
  std::vector<std::unique_ptr<Batch>> dropped;
  std::shared_ptr<ProgressListener> old;
  Progress progress;
  {
    MutexLock lock(&mutex_);
    if (retired_) return OldIncarnation(incarnation_);
    if (absl::Status status = CheckTower(tower, gather_.towers()); !status.ok()) return status;
    if (from > ledger_.next()) {
      return MakeError(absl::StatusCode::kOutOfRange, reason::kOutOfRange,
                       absl::StrFormat("from is %d, but the factor's next step is %d: the tower "
                                       "cannot send it, so no step could end",
                                       from, ledger_.next()),
                       {{"field", "from"}});
    }
    Tower& claim = towers_[tower];
    const bool other = claim.known && claim.client != client;
    if (other && claim.stream != nullptr && !take_over) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kTowerClaimed,
                       absl::StrFormat("tower %d is claimed by another client's live stream; set "
                                       "take_over to claim it all the same",
                                       tower),
                       {{"field", "tower"}});
    }
    if (other) {
      for (const int64_t step : gather_.ClearTower(tower)) {
        dropped.push_back(std::move(open_steps_.at(step).batches[tower]));
      }
      CloseEmptySteps();
    }
    old = std::exchange(claim.stream, stream);
    claim.client = client;
    claim.known = true;
    progress = ProgressLocked(std::max<int64_t>(from, 1));
  }
  if (old != nullptr && old != stream) old->OnProgress(shared_from_this());
  return progress;
}

void Factor::Close(const ProgressListener* stream) {
  Listeners released;  // destroyed after the lock
  MutexLock lock(&mutex_);
  for (Tower& tower : towers_) {
    if (tower.stream.get() == stream && stream != nullptr) released.insert(std::move(tower.stream));
  }
}

absl::Status Factor::CheckHeader(const BatchHeader& header, const ProgressListener* stream) const {
  if (retired_ || header.incarnation != incarnation_) return OldIncarnation(header.incarnation);
  if (absl::Status status = CheckTower(header.tower, gather_.towers()); !status.ok()) return status;
  if (towers_[header.tower].stream.get() != stream) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kTowerNotOpen,
        absl::StrFormat("tower %d has not been opened on this stream, or another client "
                        "has taken it over; open it first",
                        header.tower),
        {{"field", "tower"}});
  }
  if (header.step < 1) {
    return BadArgument("step", absl::StrFormat("step is %d; steps count from 1", header.step));
  }
  if (absl::Status status = CheckAverage(header); !status.ok()) return status;
  return kind_->CheckBatch(header);
}

absl::StatusOr<std::unique_ptr<PendingBatch>> Factor::Begin(const BatchHeader& header,
                                                            const ProgressListener* stream) {
  MutexLock lock(&mutex_);
  if (absl::Status status = CheckHeader(header, stream); !status.ok()) return status;
  if (header.step < ledger_.next()) {
    if (header.step < ledger_.floor()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kForgotten,
                       absl::StrFormat("step %d ended too long ago to say how", header.step));
    }
    if (ledger_.OutcomeOf(header.step) == StepOutcome::kFailed) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, reason::kStepFailed,
          absl::StrFormat("step %d has ended FAILED and counts for nothing", header.step));
    }
    return nullptr;
  }
  const absl::StatusOr<StepGather::Ticket> ticket =
      gather_.Begin(header.step, header.tower, ParametersOf(header), header.digest);
  if (!ticket.ok()) return ticket.status();
  if (*ticket == 0) return nullptr;

  absl::Status status = ReserveBatch(header.step, kind_->HeldBytes(header));
  std::unique_ptr<Batch> batch = status.ok() ? kind_->NewBatch(header) : nullptr;
  if (status.ok() && batch == nullptr) {
    status =
        MakeError(absl::StatusCode::kResourceExhausted, reason::kBatchBudget,
                  absl::StrFormat("no memory for a batch of %d bytes", kind_->HeldBytes(header)));
  }
  if (!status.ok()) {
    gather_.Abandon(header.step, header.tower, *ticket);
    CloseEmptySteps();
    return status;
  }
  return std::unique_ptr<PendingBatch>(
      new PendingBatch(shared_from_this(), header, *ticket, std::move(batch)));
}

// The first batch of a step reserves room for all towers, so that what has been let in can always
// be completed; a larger one raises the share of all.
absl::Status Factor::ReserveBatch(int64_t step, int64_t bytes) {
  ByteBudget& budget = *environment_.batch_budget;
  if (bytes > budget.limit() / gather_.towers()) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kBatchBudget,
        absl::StrFormat("a step of %d towers with a batch of %d bytes each can never fit "
                        "the batch budget of %d bytes; send smaller batches",
                        gather_.towers(), bytes, budget.limit()),
        {{"field", "rows"}});
  }
  OpenStep& open = open_steps_[step];
  if (open.batches.empty()) open.batches.resize(gather_.towers());
  if (bytes <= open.share) return absl::OkStatus();
  std::optional<ByteGrant> grant = budget.TryTake((bytes - open.share) * gather_.towers());
  if (!grant.has_value()) {
    return MakeError(
        absl::StatusCode::kResourceExhausted,
        absl::StrFormat("the batch budget of %d bytes has no room for a batch of %d bytes "
                        "per tower at present; send it again later",
                        budget.limit(), bytes),
        {.reason = std::string(reason::kBatchBudget),
         .metadata = {},
         .retry_after = absl::Milliseconds(100)});
  }
  open.grants.push_back(*std::move(grant));
  open.share = bytes;
  return absl::OkStatus();
}

void Factor::CloseEmptySteps() {
  for (auto it = open_steps_.begin(); it != open_steps_.end();) {
    it = gather_.IsOpen(it->first) ? std::next(it) : open_steps_.erase(it);
  }
}

absl::Status Factor::CompleteBatch(const PendingBatch& pending, std::unique_ptr<Batch> batch) {
  MutexLock lock(&mutex_);
  if (retired_ || pending.incarnation_ != incarnation_) return OldIncarnation(pending.incarnation_);
  if (!gather_.Complete(pending.step_, pending.tower_, pending.ticket_)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kTowerClaimed,
                     absl::StrFormat("another client has taken over tower %d", pending.tower_),
                     {{"field", "tower"}});
  }
  OpenStep& open = open_steps_.at(pending.step_);
  open.batches[pending.tower_] = std::move(batch);
  if (pending.tower_ == 0) open.label = pending.label_;
  if (gather_.NextIsWhole()) ScheduleCommit();
  return absl::OkStatus();
}

void Factor::AbandonBatch(const PendingBatch& pending) {
  MutexLock lock(&mutex_);
  if (pending.incarnation_ != incarnation_) return;
  if (gather_.Abandon(pending.step_, pending.tower_, pending.ticket_)) CloseEmptySteps();
}

void Factor::ScheduleCommit() {
  if (std::exchange(commit_scheduled_, true)) return;
  environment_.pool->Schedule([self = shared_from_this()] { self->RunCommit(); });
}

// One step per task, so that a factor far ahead does not keep others waiting.
void Factor::RunCommit() {
  if (std::optional<Commit> commit = TakeCommit(); commit.has_value()) {
    const double bound = Compute(*commit);
    // Before anyone hears of the step: who does may send at once, and needs the room.
    commit->step.batches.clear();
    commit->step.grants.clear();
    const bool committed = Publish(*commit, bound);
    commit.reset();
    Listeners listeners;
    {
      MutexLock lock(&mutex_);
      listeners = ListenersLocked();
    }
    Notify(listeners);
    if (committed) RefreshDueResults();
  }
  MutexLock lock(&mutex_);
  commit_scheduled_ = false;
  if (gather_.NextIsWhole()) ScheduleCommit();
}

std::optional<Factor::Commit> Factor::TakeCommit() {
  MutexLock lock(&mutex_);
  if (!gather_.NextIsWhole()) return std::nullopt;  // dropped by a reset
  Commit commit;
  commit.parameters = gather_.BeginCommit();
  commit.step = std::move(open_steps_.extract(gather_.next()).mapped());
  std::vector<const Batch*> batches;
  for (const auto& batch : commit.step.batches) batches.push_back(batch.get());
  const auto [decay, weight] = commit.parameters;
  commit.total_weight = decay * current_->total_weight + weight;
  // The margin covers the rounding of every step so far.
  commit.bound = (decay * current_->bound + weight * kind_->BoundOf(batches)) * (1 + 1e-6);
  if (!(commit.bound <= MaxOf(spec_.dtype))) commit.bound = std::numeric_limits<double>::infinity();
  commit.from = current_;
  if (current_->pins == 0 && std::isfinite(commit.bound)) {
    in_place_ = true;
    commit.to = current_;
  } else {
    commit.to = std::make_shared<StateVersion>();
    commit.to->version.incarnation = incarnation_;
    commit.to->matrix = Matrix::New(kind_->state_shape());
    if (commit.to->matrix == nullptr) commit.to = nullptr;
  }
  return commit;
}

// Returns a bound of the new state's elements; not finite if the step has failed.
double Factor::Compute(const Commit& commit) const {
  const double failed = std::numeric_limits<double>::infinity();
  if (commit.to == nullptr || !std::isfinite(commit.total_weight)) return failed;
  std::vector<const Batch*> batches;
  for (const auto& batch : commit.step.batches) batches.push_back(batch.get());
  const bool find_largest = !std::isfinite(commit.bound);
  const double largest =
      kind_->Advance(commit.parameters, batches, find_largest, *commit.from->matrix,
                     *commit.to->matrix, *environment_.backend);
  return find_largest ? largest : commit.bound;
}

// Ends the step, unless its incarnation has ended before. True if it has committed.
bool Factor::Publish(Commit& commit, double bound) {
  MutexLock lock(&mutex_);
  if (retired_ || commit.from->version.incarnation != incarnation_) return false;
  in_place_ = false;
  const bool committed = std::isfinite(bound);
  const int64_t step = gather_.next();
  gather_.EndStep();
  ledger_.Record(committed ? StepOutcome::kWhole : StepOutcome::kFailed);
  if (committed) {
    StateVersion& state = *commit.to;
    state.version = {.incarnation = incarnation_, .epoch = environment_.epoch, .step = step};
    state.steps_committed = ledger_.steps_committed();
    state.total_weight = commit.total_weight;
    state.bound = bound;
    state.label = commit.step.label;
    if (current_ != commit.to && current_->pins > 0) older_pinned_.push_back(current_);
    current_ = commit.to;
  }
  if (environment_.watchers->watched()) {
    FactorEvent event = EventLocked(FactorEventKind::kStepEnded);
    event.step = step;
    event.outcome = committed ? StepOutcome::kWhole : StepOutcome::kFailed;
    event.towers_counted = committed ? gather_.towers() : 0;
    event.label = commit.step.label;
    environment_.watchers->Publish(event);
  }
  WakeReads();
  return committed;
}

}  // namespace fisherd::core
