#include "core/step_gather.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

constexpr size_t kMaxChanges = 4096;  // of the number of towers, that are remembered

absl::Status ParametersDiffer(const StepParameters& had, const StepParameters& got) {
  const bool decay = had.decay != got.decay;
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kStepParametersDiffer,
                   absl::StrFormat("%s is %.17g, but another tower of this step sent %.17g; all "
                                   "towers of a step must send the same",
                                   decay ? "decay" : "weight", decay ? got.decay : got.weight,
                                   decay ? had.decay : had.weight),
                   {{"field", decay ? "decay" : "weight"}});
}

}  // namespace

absl::Status CheckTower(int tower, int towers) {
  if (tower >= 0 && tower < towers) return absl::OkStatus();
  return MakeError(absl::StatusCode::kOutOfRange, reason::kOutOfRange,
                   absl::StrFormat("tower is %d; the factor has towers 0 to %d", tower, towers - 1),
                   {{"field", "tower"}});
}

// ---- Batches

StepGather::StepGather(int towers, int window) : StepGather(TowerPlan(towers), window, 1) {}

StepGather::StepGather(const TowerPlan& plan, int window, int64_t next)
    : plan_(plan), window_(window), next_(next), towers_(plan.MostFrom(next)) {}

absl::Status StepGather::CheckOffer(const Offer& offer, const StepRoom& room) const {
  const int towers = plan_.At(offer.step);
  if (absl::Status status = CheckTower(offer.tower, towers); !status.ok()) return status;
  if (offer.step - next_ >= window_) {
    return MakeError(
        absl::StatusCode::kOutOfRange, reason::kBeyondWindow,
        absl::StrFormat("step is %d; at present steps %d to %d may be sent (window %d); "
                        "wait for an acknowledgement",
                        offer.step, next_, next_ + window_ - 1, window_),
        {{"field", "step"}});
  }
  if (offer.bytes > room.limit() / towers) {
    return MakeError(absl::StatusCode::kResourceExhausted, reason::kBatchBudget,
                     absl::StrFormat("a step of %d towers with a batch of %d bytes each can never "
                                     "fit the batch budget of %d bytes; send smaller batches",
                                     towers, offer.bytes, room.limit()),
                     {{"field", "rows"}});
  }
  return absl::OkStatus();
}

absl::Status StepGather::CheckHeld(const Slot& slot, const Digest& digest) const {
  if (slot.digest != digest) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kIdentityReused,
                     "the step has been sent with another digest; one (step, tower) names one "
                     "batch",
                     {{"field", "digest"}});
  }
  if (slot.arrival == Arrival::kWhole) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, reason::kIdentityReused,
                   "the batch is on its way already");
}

// The step that the tower has to send now.
int64_t StepGather::ExpectedFrom(int tower, const Ledger& ledger) const {
  int64_t step = std::max(towers_[tower].from, plan_.FirstOf(tower, next_));
  const auto is_whole = [&] {
    if (!IsOpen(step)) return false;
    const std::vector<Slot>& slots = open_[step - next_].slots;
    return std::cmp_less(tower, slots.size()) && slots[tower].arrival == Arrival::kWhole;
  };
  const auto ends_without = [&] {
    if (committing_ && step == next_) return true;
    const StepRun* run = ledger.Find(step);
    return run != nullptr && !run->Counted(tower);
  };
  while (is_whole() || ends_without()) ++step;
  return step;
}

absl::StatusOr<StepGather::Answer> StepGather::Begin(const Offer& offer, const Ledger& ledger,
                                                     StepRoom& room, std::vector<Hold>& holds) {
  if (absl::Status status = CheckOffer(offer, room); !status.ok()) return status;
  const int64_t step = offer.step;
  const int number = offer.tower;
  if (committing_ && step == next_ &&
      (open_.empty() || open_.front().slots[number].arrival != Arrival::kWhole)) {
    return Answer{.admission = Admission::kLate};
  }
  if (IsOpen(step)) {
    const Slot& slot = open_[step - next_].slots[number];
    if (slot.arrival != Arrival::kAbsent) {
      if (absl::Status status = CheckHeld(slot, offer.digest); !status.ok()) return status;
      return Answer{.admission = Admission::kHeld};
    }
  }
  Tower& tower = towers_[number];
  if (const int64_t expected = ExpectedFrom(number, ledger); step > expected) {
    if (tower.held_from != 0) {
      PutOnHold(tower, step);
      return Answer{.admission = Admission::kOnHold};
    }
    return MakeError(absl::StatusCode::kOutOfRange, reason::kStepOutOfOrder,
                     absl::StrFormat("step is %d, but the tower's batch of step %d is not here; "
                                     "expected step %d, or an earlier one again",
                                     step, expected, expected),
                     {{"field", "step"}});
  }
  share_ = std::max(share_, offer.bytes);
  const auto on_hold = [&] {
    PutOnHold(tower, step);
    return Answer{.admission = Admission::kOnHold};
  };
  if (!OpenThrough(step, room)) return on_hold();
  if (const Step& open = open_[step - next_];
      open.present > 0 && open.parameters != offer.parameters) {
    return ParametersDiffer(open.parameters, offer.parameters);
  }
  if (!Widen(step, offer.bytes, room, holds)) return on_hold();
  Step& open = open_[step - next_];
  open.parameters = offer.parameters;
  ++open.present;
  open.slots[number] = {Arrival::kArriving, ++last_ticket_, offer.digest};
  if (step >= tower.held_from) tower.held_from = 0;
  if (step >= tower.held_through) tower.held_through = 0;
  return Answer{.admission = Admission::kAdmitted, .ticket = last_ticket_};
}

StepGather::Slot* StepGather::Find(int64_t step, int tower, Ticket ticket) {
  if (!IsOpen(step) || std::cmp_greater_equal(tower, open_[step - next_].slots.size())) {
    return nullptr;
  }
  Slot& slot = open_[step - next_].slots[tower];
  return slot.arrival == Arrival::kArriving && slot.ticket == ticket ? &slot : nullptr;
}

bool StepGather::Complete(int64_t step, int tower, Ticket ticket) {
  if (committing_ && step == next_) return false;
  Slot* slot = Find(step, tower, ticket);
  if (slot == nullptr) return false;
  slot->arrival = Arrival::kWhole;
  ++open_[step - next_].whole;
  return true;
}

bool StepGather::Abandon(int64_t step, int tower, Ticket ticket) {
  Slot* slot = Find(step, tower, ticket);
  if (slot == nullptr) return false;
  Clear(open_[step - next_], *slot);
  return true;
}

void StepGather::Clear(Step& step, Slot& slot) {
  --step.present;
  if (slot.arrival == Arrival::kWhole) --step.whole;
  slot = Slot{};
}

void StepGather::OpenTower(int tower, int64_t from, int64_t through) {
  towers_[tower] = {.opened = true, .from = from, .through = through};
}

std::vector<int64_t> StepGather::ClearTower(int tower) {
  std::vector<int64_t> cleared;
  for (size_t i = committing_ ? 1 : 0; i < open_.size(); ++i) {
    if (std::cmp_greater_equal(tower, open_[i].slots.size())) continue;
    Slot& slot = open_[i].slots[tower];
    if (slot.arrival == Arrival::kAbsent) continue;
    if (slot.arrival == Arrival::kWhole) cleared.push_back(next_ + static_cast<int64_t>(i));
    Clear(open_[i], slot);
  }
  return cleared;
}

// ---- Room

void StepGather::PutOnHold(Tower& tower, int64_t step) {
  wanted_ = std::max(wanted_, step);
  tower.held_from = tower.held_from == 0 ? step : std::min(tower.held_from, step);
  tower.held_through = std::max(tower.held_through, step);
}

// Opens the steps up to `step`. False if one of them finds no room.
bool StepGather::OpenThrough(int64_t step, StepRoom& room) {
  while (open_through() < step) {
    const int towers = plan_.At(open_through() + 1);
    const int64_t bytes = std::min(towers * share_, room.limit());
    if (!open_.empty() && bytes > room.limit() - bytes_) {  // until one of its own ends
      room.Leave();
      return false;
    }
    if (!room.TakeInTurn(bytes)) return false;
    bytes_ += bytes;
    Step& opened = open_.emplace_back();
    opened.slots.resize(towers);
    opened.bytes = bytes;
    opened.share = bytes / towers;
  }
  return true;
}

// Makes `share` bytes for each tower of an open step. False if the step had to be closed for it.
bool StepGather::Widen(int64_t step, int64_t share, StepRoom& room, std::vector<Hold>& holds) {
  if (share <= open_[step - next_].share) return true;
  const int64_t towers = plan_.At(step);
  const int64_t more = towers * share - open_[step - next_].bytes;
  while (bytes_ + more > room.limit() || !room.Take(more)) {
    const bool own = open_through() == step;
    CloseYoungest(room, holds);
    if (own) return OpenThrough(step, room);
  }
  open_[step - next_].bytes += more;
  open_[step - next_].share = share;
  bytes_ += more;
  return true;
}

void StepGather::CloseYoungest(StepRoom& room, std::vector<Hold>& holds) {
  const int64_t step = open_through();
  const Step& youngest = open_.back();
  for (int t = 0; std::cmp_less(t, youngest.slots.size()); ++t) {
    if (youngest.slots[t].arrival == Arrival::kAbsent) continue;
    std::erase_if(holds, [&](const Hold& hold) { return hold.tower == t; });
    holds.push_back({t, step});
    PutOnHold(towers_[t], step);
  }
  room.GiveBack(youngest.bytes);
  bytes_ -= youngest.bytes;
  open_.pop_back();
}

bool StepGather::OpenWaiting(StepRoom& room) {
  const int64_t before = open_through();
  OpenThrough(std::min(wanted_, next_ + window_ - 1), room);
  return open_through() > before;
}

void StepGather::CloseEmpty(StepRoom& room) {
  std::vector<Hold> none;
  while (open_.size() > committing_ && open_.back().present == 0) CloseYoungest(room, none);
  wanted_ = 0;
  for (const Tower& tower : towers_) wanted_ = std::max(wanted_, tower.held_through);
  room.Leave();
}

void StepGather::CloseAll(StepRoom& room) {
  room.GiveBack(bytes_);
  bytes_ = 0;
  open_.clear();
  wanted_ = 0;
  committing_ = false;
  room.Leave();
}

// ---- Ends

bool StepGather::Missing(int tower) const {
  return towers_[tower].opened && towers_[tower].from > next_;
}

StepGather::Verdict StepGather::Decide(GatherPolicy policy, bool expired,
                                       const StepRun* recorded) const {
  const int towers = plan_.At(next_);
  const auto is_whole = [&](int tower) {
    return !open_.empty() && open_.front().slots[tower].arrival == Arrival::kWhole;
  };
  if (recorded != nullptr && !expired) {
    if (recorded->outcome == StepOutcome::kFailed) return Verdict::kFailed;
    const bool all = std::all_of(recorded->counted.begin(), recorded->counted.end(), is_whole);
    const bool lost = std::any_of(recorded->counted.begin(), recorded->counted.end(),
                                  [&](int t) { return !is_whole(t) && Missing(t); });
    if (all) return Verdict::kPartial;
    if (!lost) return Verdict::kWait;
  }
  int whole = 0;
  int missing = 0;
  for (int t = 0; t < towers; ++t) {
    whole += is_whole(t);
    missing += !is_whole(t) && Missing(t);
  }
  if (whole == towers) return Verdict::kWhole;
  if (!expired && whole + missing < towers) return Verdict::kWait;
  return policy == GatherPolicy::kPartial && whole > 0 ? Verdict::kPartial : Verdict::kFailed;
}

bool StepGather::ClockRuns() const { return BatchesHeld() > 0; }

std::vector<int> StepGather::WholeTowers() const {
  std::vector<int> whole;
  if (open_.empty()) return whole;
  const std::vector<Slot>& slots = open_.front().slots;
  for (int t = 0; std::cmp_less(t, slots.size()); ++t) {
    if (slots[t].arrival == Arrival::kWhole) whole.push_back(t);
  }
  return whole;
}

void StepGather::EndStep(StepRoom& room) {
  if (!open_.empty()) {
    room.GiveBack(open_.front().bytes);
    bytes_ -= open_.front().bytes;
    open_.pop_front();
  }
  ++next_;
  committing_ = false;
}

int64_t StepGather::SetTowers(int towers, bool now, StepRoom& room, std::vector<Hold>& holds) {
  const int64_t from = now ? next_ + committing_ : open_through() + 1;
  while (open_through() >= from) CloseYoungest(room, holds);
  plan_.Set(from, towers);
  if (plan_.changes().size() > kMaxChanges) plan_.Forget(next_);
  towers_.resize(std::max<size_t>(towers_.size(), towers));
  return from;
}

// ---- What it is

int64_t StepGather::ReceivedThrough(int tower) const {
  int64_t through = next_ - 1;
  for (const Step& step : open_) {
    if (std::cmp_greater_equal(tower, step.slots.size()) ||
        step.slots[tower].arrival != Arrival::kWhole) {
      break;
    }
    ++through;
  }
  return through;
}

bool StepGather::AllGiven(int64_t step) const {
  const int towers = plan_.At(next_);
  return std::all_of(towers_.begin(), towers_.begin() + towers,
                     [&](const Tower& tower) { return tower.opened && tower.through >= step; });
}

int StepGather::BatchesHeld() const {
  int held = 0;
  for (const Step& step : open_) held += step.present;
  return held;
}

std::string StepGather::Fingerprint() const {
  std::string all =
      absl::StrCat(next_, ",", committing_, ",", share_, ",", std::max(wanted_, open_through()));
  for (const Step& step : open_) {
    absl::StrAppend(&all, ";", step.bytes, ",", step.share, ",", step.parameters.decay, ",",
                    step.parameters.weight);
    for (const Slot& slot : step.slots) {
      absl::StrAppend(&all, ",", static_cast<int>(slot.arrival), ".",
                      static_cast<int>(slot.digest[0]), ".", static_cast<int>(slot.digest[1]));
    }
    absl::StrAppend(&all, "/", step.slots.size());
  }
  for (const Tower& tower : towers_) {
    absl::StrAppend(&all, ";", tower.opened, ",", tower.from, ",", tower.through, ",",
                    tower.held_from, ",", tower.held_through);
  }
  for (int64_t step = next_; step <= next_ + window_; ++step) {
    absl::StrAppend(&all, "|", plan_.At(step));
  }
  return all;
}

}  // namespace fisherd::core
