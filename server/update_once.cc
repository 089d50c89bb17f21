#include "server/update_once.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "core/error.h"
#include "server/codec.h"
#include "server/factor_error.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

absl::Status ShuttingDown() {
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                         "the server shuts down; repeat the call when it is back");
}

absl::Status TooManyCalls(size_t max_calls) {
  return core::MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrFormat("%d UpdateOnce calls are waiting, as many as the server takes; try again "
                      "later, or use an update stream",
                      max_calls),
      {.reason = std::string(core::reason::kTooManyStreams),
       .metadata = {},
       .retry_after = absl::Seconds(1)});
}

absl::StatusOr<core::ClientId> ClientIdOf(const std::string& bytes) {
  if (const auto client = SixteenBytes(bytes)) return *client;
  return core::BadArgument(
      "client_id", absl::StrFormat("client_id is %d bytes; expected %d random ones", bytes.size(),
                                   core::ClientId().size()));
}

// When to answer although the step has not ended, so that the answer arrives before the deadline.
absl::Time AnswerTime(absl::Time deadline) {
  return deadline - std::min(absl::Milliseconds(100), (deadline - absl::Now()) / 10);
}

}  // namespace

std::vector<std::shared_ptr<UpdateOnce>> OnceClaimant::Calls() {
  std::vector<std::shared_ptr<UpdateOnce>> calls;
  core::MutexLock lock(&mutex_);
  for (const auto& [key, weak] : calls_) {
    if (auto call = weak.lock()) calls.push_back(std::move(call));
  }
  return calls;
}

void OnceClaimant::OnProgress(const std::shared_ptr<core::Factor>&) {
  for (const auto& call : Calls()) call->Proceed();
}

void OnceClaimant::OnHold(const std::shared_ptr<core::Factor>&, int tower, int64_t step) {
  for (const auto& call : Calls()) call->Resend(tower, step);
}

absl::StatusOr<std::shared_ptr<OnceClaimant>> OnceTable::Join(
    const std::shared_ptr<UpdateOnce>& call, const core::ClientId& client,
    const std::shared_ptr<core::Factor>& factor) {
  core::MutexLock lock(&mutex_);
  if (shutting_down_) return ShuttingDown();
  if (calls_.size() >= max_calls_) return TooManyCalls(max_calls_);
  const Key key(client, factor);
  std::shared_ptr<OnceClaimant>& claimant = claimants_[key];
  if (claimant == nullptr) claimant = std::make_shared<OnceClaimant>();
  calls_.emplace(call.get(), key);
  core::MutexLock claimant_lock(&claimant->mutex_);
  claimant->calls_.emplace(call.get(), call);
  return claimant;
}

void OnceTable::Leave(const UpdateOnce* call) {
  core::MutexLock lock(&mutex_);
  const auto it = calls_.find(call);
  if (it == calls_.end()) return;
  const Key key = it->second;
  calls_.erase(it);
  const std::shared_ptr<OnceClaimant> claimant = claimants_.at(key);
  {
    core::MutexLock claimant_lock(&claimant->mutex_);
    claimant->calls_.erase(call);
    if (!claimant->calls_.empty()) return;
  }
  claimants_.erase(key);
  key.second->Close(claimant.get());
}

void OnceTable::Shutdown() {
  std::vector<std::shared_ptr<UpdateOnce>> calls;
  {
    core::MutexLock lock(&mutex_);
    shutting_down_ = true;
    for (const auto& [key, claimant] : claimants_) {
      for (auto& call : claimant->Calls()) calls.push_back(std::move(call));
    }
  }
  for (const auto& call : calls) call->End(ShuttingDown());
}

UpdateOnce* UpdateOnce::Start(core::FactorRegistry& registry, OnceTable& calls,
                              grpc::CallbackServerContext* context,
                              const v1::UpdateOnceRequest* request,
                              v1::UpdateOnceResponse* response, std::shared_ptr<void> place) {
  const std::shared_ptr<UpdateOnce> call(new UpdateOnce(registry, calls, request, response));
  call->self_ = call;
  call->place_ = std::move(place);
  // Without the lock: whoever loses the tower by it is told at once.
  const absl::Status status = call->Claim();
  core::MutexLock lock(&call->mutex_);
  if (!status.ok()) {
    call->EndLocked(status);
    return call.get();
  }
  call->claimed_ = true;
  call->ProceedLocked(/*now=*/false);
  if (!call->finished_) {
    const absl::Time deadline = absl::FromChrono(context->deadline());
    call->deadline_ = call->AnswerAt(AnswerTime(deadline));
  }
  return call.get();
}

absl::Status UpdateOnce::Claim() {
  const auto client = ClientIdOf(request_.client_id());
  if (!client.ok()) return client.status();
  const auto factor = registry_.Find(request_.header().factor());
  if (!factor.ok()) return factor.status();
  auto header = FromProto(request_.header());
  if (!header.ok()) return header.status();
  header_ = *std::move(header);
  auto claimant = calls_.Join(shared_from_this(), *client, *factor);
  if (!claimant.ok()) return claimant.status();
  factor_ = *factor;
  claimant_ = *std::move(claimant);
  return factor_
      ->Open({.tower = header_.tower, .client = *client, .take_over = request_.take_over()},
             claimant_)
      .status();
}

void UpdateOnce::Proceed() {
  core::MutexLock lock(&mutex_);
  ProceedLocked(/*now=*/false);
}

void UpdateOnce::Resend(int tower, int64_t step) {
  core::MutexLock lock(&mutex_);
  if (tower != header_.tower || header_.step < step) return;
  sent_ = false;
  ProceedLocked(/*now=*/false);
}

// `now`: the answer cannot wait any longer.
void UpdateOnce::ProceedLocked(bool now) {
  if (finished_ || !claimed_) return;
  if (!sent_) {
    const absl::StatusOr<bool> sent = TrySend();
    if (!sent.ok()) {
      registry_.activity().batches_refused.Add(sent.status());
      return EndLocked(sent.status());
    }
    sent_ = *sent;
  }
  if (const std::optional<absl::Status> status = TryAnswer(now)) EndLocked(*status);
}

absl::StatusOr<bool> UpdateOnce::TrySend() {
  auto admission = factor_->Begin(header_, claimant_.get());
  if (!admission.ok()) return admission.status();
  if (admission->on_hold) return false;
  if (admission->pending == nullptr) return true;  // it is here already, or has counted
  const v1::BatchRows& rows = request_.rows();
  if (rows.has_shared()) {
    return core::BadArgument("rows.shared", "memory is shared with streams only; send data");
  }
  const std::string_view bytes = rows.data();
  absl::Status status = admission->pending->rows().AddRows(rows.first_row(), rows.row_count(),
                                                           static_cast<int64_t>(bytes.size()),
                                                           {{bytes}}, rows.crc32c());
  if (status.ok()) status = admission->pending->Complete(rows.row_count());
  if (!status.ok()) return status;
  return true;
}

std::optional<absl::Status> UpdateOnce::TryAnswer(bool now) {
  // In this order: a tower that is lost by a reset has its progress tell so.
  const bool owner = factor_->IsOwner(header_.tower, claimant_.get());
  const core::Progress progress = factor_->GetProgress(header_.tower, header_.step);
  if (progress.deleted) {
    return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kOldIncarnation,
                           "the factor has been deleted");
  }
  if (progress.incarnation != header_.incarnation) {
    return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kOldIncarnation,
                           absl::StrFormat("incarnation %d has ended; it is now at incarnation %d",
                                           header_.incarnation, progress.incarnation),
                           {{"field", "header.incarnation"}});
  }
  const bool ended = header_.step < progress.next;
  if (!ended && !owner) {
    return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kTowerClaimed,
                           "another client has taken over the tower", {{"field", "tower"}});
  }
  if (!ended && !now) return std::nullopt;
  *response_.mutable_progress() = ToProto(progress, factor_->name(), header_.tower);
  if (ended) response_.set_outcome(ToProto(factor_->OutcomeOf(header_.tower, header_.step)));
  return absl::OkStatus();
}

std::unique_ptr<grpc::Alarm> UpdateOnce::AnswerAt(absl::Time time) {
  auto alarm = std::make_unique<grpc::Alarm>();
  alarm->Set(absl::ToChronoTime(time), [weak = weak_from_this()](bool rang) {
    const auto call = weak.lock();
    if (!rang || call == nullptr) return;
    core::MutexLock lock(&call->mutex_);
    call->ProceedLocked(/*now=*/true);
  });
  return alarm;
}

void UpdateOnce::End(const absl::Status& status) {
  core::MutexLock lock(&mutex_);
  EndLocked(status);
}

void UpdateOnce::EndLocked(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  deadline_ = nullptr;
  calls_.Leave(this);
  const v1::BatchHeader& header = request_.header();
  absl::Status named = NameFactor(status, header.factor());
  named = core::WithMetadata(named, "tower", absl::StrCat(header.tower()));
  named = core::WithMetadata(named, "step", absl::StrCat(header.step()));
  Finish(ToGrpcStatus(named));
}

void UpdateOnce::OnCancel() {
  End(absl::CancelledError("the call was cancelled or its deadline has passed"));
}

void UpdateOnce::OnDone() { self_.reset(); }

}  // namespace fisherd::server
