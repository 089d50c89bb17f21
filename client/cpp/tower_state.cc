#include "client/cpp/tower_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fisherd/status.h"

namespace fisherd {
namespace {

ReplayBuffer::Progress FromProto(const v1::Progress& proto) {
  ReplayBuffer::Progress progress = {.incarnation = proto.incarnation(),
                                     .epoch = proto.epoch(),
                                     .next = proto.next(),
                                     .durable = proto.durable(),
                                     .open_through = proto.open_through(),
                                     .window = proto.window(),
                                     .first = proto.first(),
                                     .missed = {}};
  for (const v1::StepRun& run : proto.missed()) {
    progress.missed.push_back({.first = run.first_step(),
                               .last = run.last_step(),
                               .failed = run.outcome() == v1::STEP_OUTCOME_FAILED});
  }
  return progress;
}

// The tower is no longer this stream's, whichever batch it was that found out.
bool LosesTower(const std::string& reason) {
  return reason == "OLD_INCARNATION" || reason == "TOWER_CLAIMED" || reason == "TOWER_NOT_OPEN" ||
         reason == "FACTOR_NOT_FOUND";
}

}  // namespace

v1::Open TowerState::MakeOpen() const {
  v1::Open open;
  open.set_factor(identity_.factor);
  open.set_tower(identity_.tower);
  open.set_from(buffer_.range().from);
  open.set_through(buffer_.range().through);
  open.set_take_over(take_over_ && !opened());
  return open;
}

void TowerState::OnOpened(const v1::Progress& progress) {
  if (ended()) return;
  const bool again = opened();
  if (!buffer_.OnOpened(FromProto(progress))) {
    return End(Error(
        absl::StatusCode::kFailedPrecondition, "OLD_INCARNATION", 0,
        absl::StrCat("incarnation ", incarnation(),
                     " has ended; open the tower again, of incarnation ", progress.incarnation())));
  }
  if (again) ++stats_.reconnects;
  progress_ = progress;
}

void TowerState::OnAck(const v1::Progress& progress) {
  if (!buffer_.open() || progress.incarnation() != incarnation() ||
      progress.epoch() != buffer_.epoch()) {
    return;
  }
  buffer_.OnAck(FromProto(progress));
  progress_.set_towers(progress.towers());
  progress_.set_first(progress.first());
}

void TowerState::OnRefused(int64_t step, const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  if (!buffer_.open() && (step > 0 || reason == "OLD_INCARNATION")) return;  // see the header
  if (step == 0) return End(status);
  if (LosesTower(reason)) return End(status);
  if (reason == "STEP_OUT_OF_ORDER") return;
  if (step < buffer_.next() || reason == "STEP_LATE" || reason == "STEP_FAILED" ||
      reason == "FORGOTTEN") {
    // How the step ended is in `missed`, unless it has been forgotten.
    buffer_.OnLate(step);
    if (reason == "FORGOTTEN") refused_[step] = status;
    return;
  }
  const int64_t next_step = buffer_.next_step();
  if (!buffer_.OnRefused(step)) return;
  refused_[step] = status;
  for (int64_t later = step + 1; later < next_step; ++later) {
    refused_[later] =
        Error(absl::StatusCode::kOutOfRange, "STEP_OUT_OF_ORDER", later,
              absl::StrCat("was written after step ", step,
                           ", which was refused, so it did not count and is to be written again: ",
                           status.message()));
  }
  sent_through_ = std::min(sent_through_, step - 1);
  refusal_unreported_ = true;
}

void TowerState::End(const absl::Status& status) {
  if (ended()) return;
  end_ = status;
  buffer_.Clear();
}

v1::Progress TowerState::progress() const {
  v1::Progress progress = progress_;
  progress.set_next(buffer_.next());
  progress.set_durable(buffer_.durable());
  progress.set_open_through(buffer_.open_through());
  progress.set_window(static_cast<int32_t>(buffer_.window()));
  progress.clear_missed();
  for (const ReplayBuffer::Run& run : buffer_.missed()) {
    v1::StepRun& missed = *progress.add_missed();
    missed.set_first_step(run.first);
    missed.set_last_step(run.last);
    missed.set_outcome(run.failed ? v1::STEP_OUTCOME_FAILED : v1::STEP_OUTCOME_PARTIAL);
  }
  return progress;
}

absl::Status TowerState::TakeRefusal() {
  const auto refused = refused_.find(next_step());
  if (!std::exchange(refusal_unreported_, false) || refused == refused_.end()) {
    return absl::OkStatus();
  }
  return refused->second;
}

absl::Status TowerState::SkipLateStep() {
  if (!buffer_.next_step_is_late()) return absl::OkStatus();
  const int64_t step = next_step();
  refused_.erase(step);
  buffer_.SkipStep();
  return Error(
      absl::StatusCode::kFailedPrecondition, "STEP_LATE", step,
      absl::StrCat("has ended without this tower's batch; the next to write is ", next_step()));
}

void TowerState::Push(std::shared_ptr<const EncodedBatch> batch) {
  refusal_unreported_ = false;
  refused_.erase(next_step());
  if (batch->form == v1::BATCH_FORM_CONTRIBUTION) {
    ++stats_.contribution_batches;
    stats_.contribution_bytes += batch->bytes;
  } else {
    ++stats_.raw_batches;
    stats_.raw_bytes += batch->bytes;
  }
  const int64_t bytes = batch->bytes;
  buffer_.Push(bytes, std::move(batch));
}

std::shared_ptr<const EncodedBatch> TowerState::TakeToSend(bool shares) {
  const ReplayBuffer::Kept* next = buffer_.NextToSend();
  if (next == nullptr) return nullptr;
  if (next->step <= sent_through_) ++stats_.resent_batches;
  sent_through_ = std::max(sent_through_, next->step);
  std::shared_ptr<const EncodedBatch> batch = next->payload;
  if (shares && batch->block != nullptr) ++stats_.shared_batches;
  buffer_.BeginSend();
  return batch;
}

std::optional<absl::Status> TowerState::Outcome(int64_t step) {
  if (auto refused = refused_.find(step); refused != refused_.end()) {
    if (step == next_step()) refusal_unreported_ = false;
    return refused->second;
  }
  if (const ReplayBuffer::Run* run = buffer_.FindMissed(step)) {
    return Error(absl::StatusCode::kFailedPrecondition, "STEP_FAILED", step,
                 run->failed ? "ended FAILED: a tower's batch did not come in time, or the "
                               "covariance would have overflowed the factor's type. The factor has "
                               "not changed"
                             : "ended without this tower's batch");
  }
  if (step < buffer_.next()) return absl::OkStatus();
  if (step >= next_step()) {
    return Error(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE", step,
                 absl::StrCat("has not been written; the next is ", next_step()));
  }
  if (ended()) return end_;
  return std::nullopt;
}

std::optional<absl::Status> TowerState::DurableOutcome(int64_t step) {
  std::optional<absl::Status> outcome = Outcome(step);
  if (!outcome || !outcome->ok() || step <= buffer_.durable()) return outcome;
  if (ended()) return end_;
  return std::nullopt;
}

absl::Status TowerState::Error(absl::StatusCode code, std::string_view reason, int64_t step,
                               const std::string& message) const {
  BatchIdentity identity = identity_;
  identity.step = step;
  return BatchError(code, reason, identity, message);
}

}  // namespace fisherd
