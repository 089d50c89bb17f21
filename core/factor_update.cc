// Batches in: the part of a factor that follows SPEC §5 up to a whole step.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/factor.h"
#include "core/factor_room.h"

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

absl::Status DidNotCount(int64_t step, StepOutcome outcome) {
  if (outcome == StepOutcome::kFailed) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStepFailed,
                     absl::StrFormat("step %d has ended FAILED and counts for nothing", step));
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kStepLate,
      absl::StrFormat("step %d has ended without this tower's batch, which came too late", step));
}

absl::Status TakenOver(int tower) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kTowerClaimed,
                   absl::StrFormat("another client has taken over tower %d", tower),
                   {{"field", "tower"}});
}

}  // namespace

// ---- A batch on its way

PendingBatch::PendingBatch(std::shared_ptr<Factor> factor, const BatchHeader& header,
                           const ProgressListener* stream, StepGather::Ticket ticket,
                           std::shared_ptr<IncomingBatch> rows)
    : factor_(std::move(factor)),
      incarnation_(header.incarnation),
      step_(header.step),
      tower_(header.tower),
      stream_(stream),
      ticket_(ticket),
      rows_(std::move(rows)) {}

PendingBatch::~PendingBatch() {
  if (!done_) factor_->AbandonBatch(*this);
}

absl::Status PendingBatch::Complete(int64_t rows, SmallCommit* commit) {
  if (absl::Status status = rows_->Finish(rows); !status.ok()) return status;
  done_ = true;
  return factor_->CompleteBatch(*this, commit);
}

// ---- Towers

std::vector<Factor::Lane> Factor::NewLanes() const {
  std::vector<Lane> lanes;
  const Lane lane{.gather = StepGather(asynchronous() ? 1 : spec_.towers, spec_.window),
                  .ledger = Ledger(),
                  .batches = {}};
  lanes.assign(asynchronous() ? spec_.towers : 1, lane);
  return lanes;
}

Factor::Lane& Factor::LaneOf(int tower) { return lanes_[asynchronous() ? tower : 0]; }
const Factor::Lane& Factor::LaneOf(int tower) const { return lanes_[asynchronous() ? tower : 0]; }

int Factor::TowersLocked() const {
  if (asynchronous()) return active_towers_;
  const StepGather& gather = lanes_[0].gather;
  return gather.plan().MostFrom(gather.next());
}

absl::StatusOr<Progress> Factor::Open(const Claim& claim,
                                      std::shared_ptr<ProgressListener> stream) {
  Aftermath after;
  std::shared_ptr<ProgressListener> old;
  Progress progress;
  {
    MutexLock lock(&mutex_);
    if (retired_) return OldIncarnation(incarnation_);
    if (absl::Status status = environment_.backend->Check(); !status.ok()) return status;
    if (absl::Status status = CheckTower(claim.tower, TowersLocked()); !status.ok()) return status;
    Tower& tower = towers_[claim.tower];
    const bool other = tower.known && tower.client != claim.client;
    if (other && tower.stream != nullptr && !claim.take_over) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kTowerClaimed,
                       absl::StrFormat("tower %d is claimed by another client's live stream; set "
                                       "take_over to claim it all the same",
                                       claim.tower),
                       {{"field", "tower"}});
    }
    Lane& lane = LaneOf(claim.tower);
    const int index = IndexOf(claim.tower);
    if (other) {
      lane.gather.ClearTower(index);
      for (auto& [step, batches] : lane.batches) {
        if (index < std::ssize(batches)) after.dropped.push_back(std::move(batches[index]));
      }
    }
    old = std::exchange(tower.stream, stream);
    tower.client = claim.client;
    tower.known = true;
    lane.gather.OpenTower(index, claim.from, claim.through);
    UpdateClock(lane);
    Look(asynchronous() ? claim.tower : 0);
    progress = ProgressLocked(claim.tower, std::max<int64_t>(claim.from, 1));
    // Who is new cannot begin with a step that is being committed with the batch of the one before.
    if (claim.from == 0 && lane.gather.ReceivedThrough(index) >= progress.next &&
        lane.gather.committing()) {
      progress.first = lane.gather.plan().FirstOf(index, progress.next + 1);
    }
    if (old != nullptr && old != stream) after.progress.insert(std::move(old));
  }
  SettleLater(std::move(after));
  return progress;
}

void Factor::Close(const ProgressListener* stream) {
  std::set<std::shared_ptr<ProgressListener>> released;  // destroyed after the lock
  MutexLock lock(&mutex_);
  for (Tower& tower : towers_) {
    if (tower.stream.get() == stream && stream != nullptr) released.insert(std::move(tower.stream));
  }
}

absl::StatusOr<int64_t> Factor::SetTowers(int towers, bool now) {
  if (towers < 1 || towers > kMaxTowers) {
    return BadArgument("towers",
                       absl::StrFormat("towers is %d; expected 1 to %d", towers, kMaxTowers));
  }
  Aftermath after;
  int64_t from = 0;
  {
    MutexLock lock(&mutex_);
    if (retired_) return OldIncarnation(incarnation_);
    towers_.resize(std::max<size_t>(towers_.size(), towers));
    if (asynchronous()) {
      from = current_->version.step + 1;
      active_towers_ = towers;
      while (std::cmp_less(lanes_.size(), towers)) {
        lanes_.push_back(
            {.gather = StepGather(1, spec_.window), .ledger = Ledger(), .batches = {}});
      }
    } else {
      Lane& lane = lanes_[0];
      Room room(*this);
      std::vector<StepGather::Hold> holds;
      from = lane.gather.SetTowers(towers, now, room, holds);
      ApplyHolds(0, holds, after);
      OpenWaitingSteps(after);
      UpdateClock(lane);
      Look(0);
    }
    NotifyAll(after);
    FactorEvent event = EventLocked(FactorEventKind::kTowersChanged);
    event.step = from;
    event.towers = towers;
    environment_.watchers->Publish(event);
  }
  SettleLater(std::move(after));
  return from;
}

// ---- Batches

absl::Status Factor::CheckHeader(const BatchHeader& header, const ProgressListener* stream) const {
  if (retired_ || header.incarnation != incarnation_) return OldIncarnation(header.incarnation);
  if (absl::Status status = environment_.backend->Check(); !status.ok()) return status;
  if (absl::Status status = CheckTower(header.tower, TowersLocked()); !status.ok()) return status;
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

// Why the batch cannot count any more; OK if it can, or has.
absl::Status Factor::CheckMissed(const Lane& lane, const BatchHeader& header) const {
  if (header.step < std::min(lane.ledger.floor(), lane.ledger.next())) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kForgotten,
                     absl::StrFormat("step %d ended too long ago to say how", header.step));
  }
  const StepRun* run = lane.ledger.Find(header.step);
  if (run == nullptr || run->Counted(IndexOf(header.tower))) return absl::OkStatus();
  return DidNotCount(header.step, run->outcome);
}

absl::StatusOr<BatchAdmission> Factor::Begin(const BatchHeader& header,
                                             const ProgressListener* stream) {
  Aftermath after;
  absl::StatusOr<BatchAdmission> admission;
  {
    MutexLock lock(&mutex_);
    admission = BeginLocked(header, stream, after);
  }
  SettleLater(std::move(after));
  if (!admission.ok()) return admission;
  Activity& activity = *environment_.activity;
  if (admission->pending != nullptr) {
    ++activity.batches_accepted;
    activity.batch_rows += admission->pending->rows().rows();
  } else {
    ++(admission->on_hold ? activity.batches_held : activity.batches_duplicate);
  }
  return admission;
}

absl::StatusOr<BatchAdmission> Factor::BeginLocked(const BatchHeader& header,
                                                   const ProgressListener* stream,
                                                   Aftermath& after) {
  if (absl::Status status = CheckHeader(header, stream); !status.ok()) return status;
  if (logs_steps()) {
    if (absl::Status status = environment_.store->CheckWritable(); !status.ok()) return status;
  }
  Lane& lane = LaneOf(header.tower);
  const size_t lane_index = &lane - lanes_.data();
  const int index = IndexOf(header.tower);
  if (absl::Status status = CheckMissed(lane, header); !status.ok()) return status;
  if (header.step < lane.ledger.next()) return BatchAdmission();

  Room room(*this);
  std::vector<StepGather::Hold> holds;
  const bool wanted = lane.gather.wants_room();
  const int64_t open_through = lane.gather.open_through();
  const auto answer = lane.gather.Begin({.step = header.step,
                                         .tower = index,
                                         .bytes = kind_->HeldBytes(header),
                                         .parameters = ParametersOf(header),
                                         .digest = header.digest},
                                        lane.ledger, room, holds);
  ApplyHolds(lane_index, holds, after);
  // This batch may have opened what others were told to wait for, before OnRoom could.
  if (wanted && lane.gather.open_through() > open_through) NotifyAll(after);
  UpdateClock(lane);
  if (!answer.ok()) return answer.status();
  if (answer->admission != StepGather::Admission::kAdmitted) {
    return BatchAdmission{.pending = nullptr,
                          .on_hold = answer->admission == StepGather::Admission::kOnHold};
  }
  std::unique_ptr<Batch> batch = kind_->NewBatch(header, environment_.backend->batch_memory());
  if (batch == nullptr) {
    lane.gather.Abandon(header.step, index, answer->ticket);
    UpdateClock(lane);
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kBatchBudget,
        absl::StrFormat("no memory for a batch of %d bytes", kind_->HeldBytes(header)));
  }
  const auto rows = std::make_shared<IncomingBatch>(
      BatchReader(header.tensors, header.tensors[0].shape[0], std::move(batch)),
      header.tensors[0].shape[0], header.label);
  StepBatches& batches = lane.batches[header.step];
  batches.resize(std::max<size_t>(batches.size(), index + 1));
  batches[index] = rows;
  return BatchAdmission{.pending = std::unique_ptr<PendingBatch>(new PendingBatch(
                            shared_from_this(), header, stream, answer->ticket, rows))};
}

absl::Status Factor::CompleteBatch(const PendingBatch& pending, SmallCommit* commit) {
  MutexLock lock(&mutex_);
  if (retired_ || pending.incarnation_ != incarnation_) return OldIncarnation(pending.incarnation_);
  Lane& lane = LaneOf(pending.tower_);
  const int index = IndexOf(pending.tower_);
  if (lane.gather.Complete(pending.step_, index, pending.ticket_)) {
    Look(&lane - lanes_.data(), commit);
    return absl::OkStatus();
  }
  if (towers_[pending.tower_].stream.get() != pending.stream_) return TakenOver(pending.tower_);
  if (pending.step_ < lane.gather.next()) {
    const StepRun* run = lane.ledger.Find(pending.step_);
    return DidNotCount(pending.step_, run != nullptr ? run->outcome : StepOutcome::kFailed);
  }
  // It is on hold, or its step is ending without it: nobody may be told before that is recorded.
  return absl::OkStatus();
}

void Factor::AbandonBatch(const PendingBatch& pending) {
  std::shared_ptr<IncomingBatch> dropped;
  MutexLock lock(&mutex_);
  if (pending.incarnation_ != incarnation_ || retired_) return;
  Lane& lane = LaneOf(pending.tower_);
  const int index = IndexOf(pending.tower_);
  if (!lane.gather.Abandon(pending.step_, index, pending.ticket_)) return;
  if (const auto it = lane.batches.find(pending.step_); it != lane.batches.end()) {
    dropped = std::move(it->second[index]);
  }
  UpdateClock(lane);
}

// ---- Room

void Factor::ApplyHolds(size_t lane, std::span<const StepGather::Hold> holds, Aftermath& after) {
  for (const auto& [index, step] : holds) {
    auto& batches = lanes_[lane].batches;
    for (auto it = batches.lower_bound(step); it != batches.end(); ++it) {
      if (index < std::ssize(it->second) && it->second[index] != nullptr) {
        after.dropped.push_back(std::move(it->second[index]));
      }
    }
    const int tower = FirstTower(lane) + index;
    if (towers_[tower].stream != nullptr) {
      after.holds.push_back({towers_[tower].stream, tower, step});
    }
  }
}

void Factor::OpenWaitingSteps(Aftermath& after) {
  bool opened = false;
  bool wanted = false;
  Room room(*this);
  for (Lane& lane : lanes_) {
    if (!lane.gather.wants_room()) continue;
    opened |= lane.gather.OpenWaiting(room);
    wanted |= lane.gather.wants_room();
    UpdateClock(lane);
  }
  // What was waited for may have ended, by its time; nobody shall wait behind it.
  if (!wanted) room.Leave();
  if (opened) NotifyAll(after);
}

void Factor::OnRoom() {
  if (room_scheduled_.exchange(true)) return;
  environment_.pool->Schedule([self = shared_from_this()] {
    self->room_scheduled_ = false;
    Aftermath after;
    {
      MutexLock lock(&self->mutex_);
      self->OpenWaitingSteps(after);
    }
    self->Settle(std::move(after));
  });
}

void Factor::NotifyAll(Aftermath& after) {
  for (const Tower& tower : towers_) {
    if (tower.stream != nullptr) after.progress.insert(tower.stream);
  }
}

void Factor::Settle(Aftermath after) {
  for (const auto& batch : after.dropped) {
    if (batch != nullptr) batch->Drop();
  }
  const std::shared_ptr<Factor> self = shared_from_this();
  for (const auto& hold : after.holds) hold.stream->OnHold(self, hold.tower, hold.step);
  for (const auto& stream : after.progress) stream->OnProgress(self);
}

void Factor::SettleLater(Aftermath after) {
  if (after.dropped.empty() && after.holds.empty() && after.progress.empty()) return;
  environment_.pool->Schedule([self = shared_from_this(), after = std::move(after)]() mutable {
    self->Settle(std::move(after));
  });
}

}  // namespace fisherd::core
