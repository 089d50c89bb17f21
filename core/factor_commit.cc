// Steps out: when and how a factor's steps end (SPEC §5).

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/clock.h"
#include "core/error.h"
#include "core/factor.h"
#include "core/factor_room.h"

namespace fisherd::core {

StepGather::Verdict Factor::VerdictOf(const Lane& lane) const {
  const int64_t next = lane.gather.next();
  return lane.gather.Decide(spec_.gather_policy, lane.expired == next, lane.ledger.Find(next));
}

// The lane's next step may have all that it takes.
void Factor::Look(size_t lane, SmallCommit* commit) {
  if (lanes_[lane].gather.committing() || VerdictOf(lanes_[lane]) == StepGather::Verdict::kWait) {
    return;
  }
  to_look_at_.push_back(lane);
  if (std::exchange(commit_scheduled_, true)) return;
  SmallCommit run = [self = shared_from_this()] { self->RunCommit(); };
  if (commit != nullptr && IsSmall(lanes_[lane])) {
    *commit = std::move(run);
  } else {
    environment_.pool->Schedule(std::move(run));
  }
}

// Nothing but a product that is done sooner than another thread has woken up.
bool Factor::IsSmall(const Lane& lane) const {
  if (logs_steps() || !results_.all().empty()) return false;
  const auto batches = lane.batches.find(lane.gather.next());
  if (batches == lane.batches.end()) return false;
  int64_t rows = 1;
  for (const auto& batch : batches->second) rows += batch == nullptr ? 0 : batch->rows();
  return static_cast<double>(rows) * kind_->state_shape().size() <= environment_.small_work;
}

// One step per task, so that a factor far ahead does not keep others waiting.
void Factor::RunCommit() {
  const std::shared_ptr<Ending> ending = TakeStep();
  if (ending == nullptr) return TakeNextStep();
  for (const auto& other : std::exchange(ending->others, {})) other->Drop();
  if (ending->outcome != StepOutcome::kWhole) return RecordOutcome(ending, &Factor::ComputeStep);
  ComputeStep(ending);
}

std::shared_ptr<Factor::Ending> Factor::TakeStep() {
  MutexLock lock(&mutex_);
  while (!to_look_at_.empty()) {
    const size_t index = to_look_at_.front();
    to_look_at_.pop_front();
    Lane& lane = lanes_[index];
    const auto verdict = VerdictOf(lane);
    if (verdict == StepGather::Verdict::kWait) continue;  // dropped since
    const auto ending = std::make_shared<Ending>();
    ending->lane = index;
    ending->step = lane.gather.next();
    ending->incarnation = incarnation_;
    if (verdict != StepGather::Verdict::kFailed) {
      const StepRun* recorded = lane.ledger.Find(ending->step);
      const bool again = recorded != nullptr && lane.expired != ending->step &&
                         verdict == StepGather::Verdict::kPartial;
      ending->counted = again ? recorded->counted : lane.gather.WholeTowers();
      ending->outcome =
          verdict == StepGather::Verdict::kWhole ? StepOutcome::kWhole : StepOutcome::kPartial;
    }
    if (const auto it = lane.batches.find(ending->step); it != lane.batches.end()) {
      absl::Time first = absl::InfiniteFuture();
      for (const auto& batch : it->second) {
        if (batch != nullptr) first = std::min(first, batch->began());
      }
      if (first != absl::InfiniteFuture()) {
        environment_.activity->gather_wait.Observe(SteadyNow() - first);
      }
      for (const int tower : ending->counted) {
        if (ending->batches.empty()) ending->label = it->second[tower]->label();
        ending->batches.push_back(std::exchange(it->second[tower], nullptr)->Release());
      }
      for (auto& other : it->second) {
        if (other != nullptr) ending->others.push_back(std::move(other));
      }
      lane.batches.erase(it);
    }
    lane.gather.BeginEnd();
    return ending;
  }
  return nullptr;
}

FactorStore::Done Factor::Then(const std::shared_ptr<Ending>& ending,
                               void (Factor::*next)(const std::shared_ptr<Ending>&)) {
  return [self = shared_from_this(), ending, next](const absl::Status& status) {
    // A step that cannot be recorded never ends: what is served is what was before it.
    if (!status.ok()) return;
    self->environment_.pool->Schedule([self, ending, next] { (self.get()->*next)(ending); });
  };
}

// A step that was not whole.
void Factor::RecordOutcome(const std::shared_ptr<Ending>& ending,
                           void (Factor::*next)(const std::shared_ptr<Ending>&)) {
  if (environment_.store == nullptr) return (this->*next)(ending);
  environment_.store->RecordOutcome(name_, ending->incarnation, static_cast<int>(ending->lane),
                                    {ending->step, ending->step, ending->outcome, ending->counted},
                                    Then(ending, next));
}

void Factor::ComputeStep(const std::shared_ptr<Ending>& ending) {
  if (ending->outcome == StepOutcome::kFailed) return LogStep(ending);
  if (!PrepareCommit(*ending)) return EndStep(ending);
  const absl::Time began = SteadyNow();
  ending->bound = Compute(*ending);
  environment_.activity->compute.Observe(SteadyNow() - began);
  if (!environment_.backend->Check().ok()) {
    // The step never ends: its batches are sent again to the server that comes after this.
    MutexLock lock(&mutex_);
    return WakeReads();
  }
  if (std::isfinite(ending->bound)) return LogStep(ending);
  ending->outcome = StepOutcome::kFailed;
  ending->counted.clear();
  RecordOutcome(ending, &Factor::LogStep);
}

// Chooses where the new state is written: false if the incarnation has ended meanwhile.
bool Factor::PrepareCommit(Ending& ending) {
  MutexLock lock(&mutex_);
  if (retired_ || ending.incarnation != incarnation_) return false;
  ending.parameters = lanes_[ending.lane].gather.parameters();
  std::vector<const Batch*> batches;
  for (const auto& batch : ending.batches) batches.push_back(batch.get());
  const auto [decay, weight] = ending.parameters;
  ending.total_weight = decay * current_->total_weight + weight;
  // The margin covers the rounding of every step so far.
  ending.bound = (decay * current_->bound + weight * kind_->BoundOf(batches)) * (1 + 1e-6);
  if (!(ending.bound <= MaxOf(spec_.dtype))) ending.bound = std::numeric_limits<double>::infinity();
  ending.version = {.incarnation = incarnation_,
                    .epoch = environment_.epoch,
                    .step = asynchronous() ? current_->version.step + 1 : ending.step};
  ending.from = current_;
  // What a log may still refuse is written beside: until then the state before is served.
  if (current_->pins == 0 && std::isfinite(ending.bound) && !logs_steps()) {
    in_place_ = true;
    ending.to = current_;
    return true;
  }
  ending.to = std::make_shared<StateVersion>();
  ending.to->matrix = environment_.backend->NewMatrix(kind_->state_shape());
  if (ending.to->matrix == nullptr) ending.to = nullptr;
  return true;
}

// Returns a bound of the new state's elements; not finite if the step has failed.
double Factor::Compute(const Ending& ending) const {
  const double failed = std::numeric_limits<double>::infinity();
  if (ending.to == nullptr || !std::isfinite(ending.total_weight)) return failed;
  std::vector<const Batch*> batches;
  for (const auto& batch : ending.batches) batches.push_back(batch.get());
  const bool find_largest = !std::isfinite(ending.bound);
  const double largest =
      kind_->Advance(ending.parameters, batches, find_largest, *ending.from->matrix,
                     *ending.to->matrix, *environment_.backend);
  return find_largest || std::isnan(largest) ? largest : ending.bound;
}

void Factor::LogStep(const std::shared_ptr<Ending>& ending) {
  if (!logs_steps()) return EndStep(ending);
  StepRecord record = {.factor = name_,
                       .incarnation = ending->incarnation,
                       .ledger = static_cast<int>(ending->lane),
                       .run = {ending->step, ending->step, ending->outcome, ending->counted},
                       .version = ending->version,
                       .total_weight = ending->total_weight,
                       .bound = ending->bound,
                       .label = ending->label,
                       .parameters = ending->parameters,
                       .batches = {}};
  if (ending->outcome != StepOutcome::kFailed) {
    int64_t bytes = 0;
    for (const auto& batch : ending->batches) bytes += kind_->SavedBytes(*batch);
    if (bytes < kind_->state_shape().bytes()) {
      for (const auto& batch : ending->batches) record.batches.push_back(kind_->SaveBatch(*batch));
    } else {
      record.state = ending->to->matrix.get();
    }
  }
  {
    MutexLock lock(&mutex_);
    for (const Lane& lane : lanes_) record.ended += lane.ledger.next() - 1;
  }
  ++record.ended;
  ending->logged = SteadyNow();
  environment_.store->LogStep(std::move(record), Then(ending, &Factor::EndStep));
}

void Factor::EndStep(const std::shared_ptr<Ending>& ending) {
  // Before anyone hears of the step: who does may send at once, and needs the room.
  ending->batches.clear();
  if (ending->logged.has_value()) {
    environment_.activity->record.Observe(SteadyNow() - *ending->logged);
  }
  Aftermath after;
  const bool published = Publish(*ending, after);
  if (published && environment_.store != nullptr) {
    environment_.store->StepEnded(shared_from_this());
  }
  if (published) CountEnded(ending->outcome);
  const bool committed = published && ending->outcome != StepOutcome::kFailed;
  ending->from = nullptr;
  ending->to = nullptr;
  Settle(std::move(after));
  if (committed) RefreshDueResults();
  TakeNextStep();
}

void Factor::TakeNextStep() {
  MutexLock lock(&mutex_);
  commit_scheduled_ = false;
  if (to_look_at_.empty()) return;
  commit_scheduled_ = true;
  environment_.pool->Schedule([self = shared_from_this()] { self->RunCommit(); });
}

// Ends the step, unless its incarnation has ended before.
bool Factor::Publish(const Ending& ending, Aftermath& after) {
  MutexLock lock(&mutex_);
  if (retired_ || ending.incarnation != incarnation_) return false;
  in_place_ = false;
  Lane& lane = lanes_[ending.lane];
  Room room(*this);
  lane.gather.EndStep(room);
  lane.ledger.Record(ending.outcome, ending.counted);
  if (environment_.store == nullptr || logs_steps()) lane.durable = ending.step;
  if (ending.outcome != StepOutcome::kFailed) {
    updated_ = SteadyNow();
    const int64_t committed = current_->steps_committed + 1;
    StateVersion& state = *ending.to;
    state.version = ending.version;
    state.steps_committed = committed;
    state.total_weight = ending.total_weight;
    state.bound = ending.bound;
    state.label = ending.label;
    if (current_ != ending.to && current_->pins > 0) older_pinned_.push_back(current_);
    current_ = ending.to;
  }
  OpenWaitingSteps(after);
  UpdateClock(lane);
  Look(ending.lane);
  WakeReads();
  NotifyAll(after);
  TellEnded(ending);
  return true;
}

void Factor::CountEnded(StepOutcome outcome) const {
  Activity& activity = *environment_.activity;
  switch (outcome) {
    case StepOutcome::kWhole:
      ++activity.steps_whole;
      break;
    case StepOutcome::kPartial:
      ++activity.steps_partial;
      break;
    case StepOutcome::kFailed:
      ++activity.steps_failed;
      break;
  }
}

void Factor::TellEnded(const Ending& ending) {
  if (!environment_.watchers->watched()) return;
  FactorEvent event = EventLocked(FactorEventKind::kStepEnded);
  event.step = ending.step;
  event.outcome = ending.outcome;
  event.towers_counted = static_cast<int>(ending.counted.size());
  event.label = ending.label;
  event.tower = FirstTower(ending.lane);
  environment_.watchers->Publish(event);
}

// ---- The gather clock

// An open step has until gather_timeout: one with a batch to end, one without to stay open.
void Factor::UpdateClock(Lane& lane) {
  const StepGather& gather = lane.gather;
  if (gather.committing() || gather.open_through() < gather.next()) {
    lane.clock_of = {};
    lane.deadline = absl::InfiniteFuture();
    return;
  }
  const int64_t next = gather.next();
  const bool recovering = restored_ && (!gather.AllGiven(0) || gather.AllGiven(next) ||
                                        lane.ledger.Find(next) != nullptr);
  const Lane::ClockOf clock_of{next, gather.ClockRuns(), recovering};
  if (lane.clock_of == clock_of) return;
  lane.clock_of = clock_of;
  lane.deadline = SteadyNow() + (recovering ? environment_.recovery_timeout : spec_.gather_timeout);
  ArmTimer();
}

void Factor::ArmTimer() {
  absl::Time earliest = absl::InfiniteFuture();
  for (const Lane& lane : lanes_) earliest = std::min(earliest, lane.deadline);
  if (earliest >= armed_for_) return;
  armed_for_ = earliest;
  environment_.timers->CallAt(earliest, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->environment_.pool->Schedule([self] { self->OnTimer(); });
  });
}

void Factor::OnTimer() {
  Aftermath after;
  {
    MutexLock lock(&mutex_);
    armed_for_ = absl::InfiniteFuture();
    const absl::Time now = SteadyNow();
    for (Lane& lane : lanes_) {
      if (lane.deadline > now || retired_) continue;
      lane.deadline = absl::InfiniteFuture();
      if (lane.gather.ClockRuns()) {
        lane.expired = lane.gather.next();
        Look(&lane - lanes_.data());
      } else {
        Room room(*this);
        lane.gather.CloseEmpty(room);
        lane.clock_of = {};
        NotifyAll(after);
      }
    }
    OpenWaitingSteps(after);
    ArmTimer();
  }
  Settle(std::move(after));
}

}  // namespace fisherd::core
