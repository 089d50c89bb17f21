#include "client/cpp/tower_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cpp/errors.h"

namespace fisherd {

void TowerState::OnOpened(const v1::Progress& progress) {
  if (opened_) return;
  opened_ = true;
  progress_ = progress;
  next_step_ = progress.next();
}

void TowerState::OnAck(const v1::Progress& progress) {
  if (!opened_ || progress.incarnation() != progress_.incarnation() ||
      progress.epoch() != progress_.epoch()) {
    return;
  }
  AddMissed(progress);
  progress_.set_next(std::max(progress_.next(), progress.next()));
  progress_.set_durable(std::max(progress_.durable(), progress.durable()));
  progress_.set_open_through(progress.open_through());
  progress_.set_window(progress.window());
  progress_.set_towers(progress.towers());
}

void TowerState::AddMissed(const v1::Progress& progress) {
  for (const v1::StepRun& run : progress.missed()) {
    auto* missed = progress_.mutable_missed();
    v1::StepRun* last = missed->empty() ? nullptr : &(*missed)[missed->size() - 1];
    if (last != nullptr && last->last_step() + 1 == run.first_step() &&
        last->outcome() == run.outcome()) {
      last->set_last_step(run.last_step());
    } else {
      *missed->Add() = run;
    }
  }
}

void TowerState::OnRefused(int64_t step, const absl::Status& status) {
  if (auto due = refusals_due_.find(step); due != refusals_due_.end()) {
    if (--due->second == 0) refusals_due_.erase(due);
    return;
  }
  if (!opened_ || step >= next_step_) return;
  refused_[step] = status;
  for (int64_t later = step + 1; later < next_step_; ++later) {
    refused_[later] = Error(
        absl::StatusCode::kOutOfRange, "STEP_OUT_OF_ORDER", later,
        absl::StrCat(
            "was on its way when step ", step,
            " was refused, so it did not count and is to be written again: ", status.message()));
    ++refusals_due_[later];
  }
  next_step_ = step;
  refusal_unreported_ = true;
}

void TowerState::End(const absl::Status& status) {
  if (!ended()) end_ = status;
}

void TowerState::BeginStep() {
  refusal_unreported_ = false;
  refused_.erase(next_step_);
  ++next_step_;
}

absl::Status TowerState::TakeRefusal() {
  if (!refusal_unreported_) return absl::OkStatus();
  refusal_unreported_ = false;
  return refused_.at(next_step_);
}

std::optional<absl::Status> TowerState::Outcome(int64_t step) {
  if (auto refused = refused_.find(step); refused != refused_.end()) {
    if (step == next_step_) refusal_unreported_ = false;
    return refused->second;
  }
  if (step < progress_.next()) {
    for (const v1::StepRun& run : progress_.missed()) {
      if (step < run.first_step() || step > run.last_step()) continue;
      if (run.outcome() == v1::STEP_OUTCOME_FAILED) {
        return Error(absl::StatusCode::kFailedPrecondition, "STEP_FAILED", step,
                     "ended FAILED: its covariance would have overflowed the factor's type. The "
                     "factor has not changed");
      }
      return Error(absl::StatusCode::kFailedPrecondition, "STEP_FAILED", step,
                   "ended without this tower's batch");
    }
    return absl::OkStatus();
  }
  if (step >= next_step_) {
    return Error(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE", step,
                 absl::StrCat("has not been written; the next is ", next_step_));
  }
  if (ended()) return end_;
  return std::nullopt;
}

absl::Status TowerState::Error(absl::StatusCode code, absl::string_view reason, int64_t step,
                               const std::string& message) const {
  return MakeError(
      code, reason,
      absl::StrCat("factor \"", factor_, "\", tower ", tower_, ", step ", step, ": ", message),
      {{"factor", factor_}, {"tower", absl::StrCat(tower_)}, {"step", absl::StrCat(step)}});
}

}  // namespace fisherd
