#include "core/step_gather.h"

#include <string>

#include "absl/strings/str_format.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

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

StepGather::StepGather(int towers, int window) : towers_(towers), window_(window) {}

absl::StatusOr<StepGather::Ticket> StepGather::Begin(int64_t step, int tower,
                                                     const StepParameters& parameters,
                                                     const Digest& digest) {
  if (absl::Status status = CheckTower(tower, towers_); !status.ok()) return status;
  if (step - next_ >= window_) {
    return MakeError(
        absl::StatusCode::kOutOfRange, reason::kBeyondWindow,
        absl::StrFormat("step is %d; at present steps %d to %d may be sent (window %d); "
                        "wait for an acknowledgement",
                        step, next_, next_ + window_ - 1, window_),
        {{"field", "step"}});
  }
  while (std::cmp_less_equal(steps_.size(), step - next_)) {
    steps_.emplace_back().slots.resize(towers_);
  }
  Step& open = steps_[step - next_];
  Slot& slot = open.slots[tower];
  if (slot.arrival != Arrival::kAbsent) {
    if (slot.digest != digest) {
      return MakeError(absl::StatusCode::kInvalidArgument, reason::kIdentityReused,
                       absl::StrFormat("step %d of tower %d has been sent with another digest; one "
                                       "(step, tower) names one batch",
                                       step, tower),
                       {{"field", "digest"}});
    }
    if (slot.arrival == Arrival::kWhole) return Ticket{0};
    return MakeError(absl::StatusCode::kAborted, reason::kIdentityReused,
                     absl::StrFormat("step %d of tower %d is on its way already", step, tower));
  }
  if (open.present > 0 && open.parameters != parameters) {
    return ParametersDiffer(open.parameters, parameters);
  }
  open.parameters = parameters;
  ++open.present;
  slot = {Arrival::kArriving, ++last_ticket_, digest};
  return slot.ticket;
}

StepGather::Slot* StepGather::Find(int64_t step, int tower, Ticket ticket) {
  if (step < next_ || !std::cmp_less(step - next_, steps_.size())) return nullptr;
  Slot& slot = steps_[step - next_].slots[tower];
  return slot.arrival == Arrival::kArriving && slot.ticket == ticket ? &slot : nullptr;
}

bool StepGather::Complete(int64_t step, int tower, Ticket ticket) {
  Slot* slot = Find(step, tower, ticket);
  if (slot == nullptr) return false;
  slot->arrival = Arrival::kWhole;
  ++steps_[step - next_].whole;
  return true;
}

bool StepGather::Abandon(int64_t step, int tower, Ticket ticket) {
  Slot* slot = Find(step, tower, ticket);
  if (slot == nullptr) return false;
  Clear(steps_[step - next_], *slot);
  return true;
}

void StepGather::Clear(Step& step, Slot& slot) {
  --step.present;
  if (slot.arrival == Arrival::kWhole) --step.whole;
  slot = Slot{};
}

std::vector<int64_t> StepGather::ClearTower(int tower) {
  std::vector<int64_t> cleared;
  for (size_t i = committing_ ? 1 : 0; i < steps_.size(); ++i) {
    Slot& slot = steps_[i].slots[tower];
    if (slot.arrival == Arrival::kAbsent) continue;
    if (slot.arrival == Arrival::kWhole) cleared.push_back(next_ + static_cast<int64_t>(i));
    Clear(steps_[i], slot);
  }
  return cleared;
}

bool StepGather::NextIsWhole() const { return !steps_.empty() && steps_.front().whole == towers_; }

const StepParameters& StepGather::BeginCommit() {
  committing_ = true;
  return steps_.front().parameters;
}

void StepGather::EndStep() {
  steps_.pop_front();
  ++next_;
  committing_ = false;
}

int64_t StepGather::ReceivedThrough(int tower) const {
  int64_t through = next_ - 1;
  for (const Step& step : steps_) {
    if (step.slots[tower].arrival != Arrival::kWhole) break;
    ++through;
  }
  return through;
}

bool StepGather::IsOpen(int64_t step) const {
  return step >= next_ && std::cmp_less(step - next_, steps_.size()) &&
         steps_[step - next_].present > 0;
}

int StepGather::BatchesHeld() const {
  int held = 0;
  for (const Step& step : steps_) held += step.present;
  return held;
}

}  // namespace fisherd::core
