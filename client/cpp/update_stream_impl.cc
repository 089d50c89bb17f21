#include "client/cpp/update_stream_impl.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cpp/errors.h"

namespace fisherd {
namespace {

absl::Status TimedOut(const BatchIdentity& identity, int64_t step, const std::string& message) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "",
                   absl::StrCat("factor \"", identity.factor, "\", tower ", identity.tower,
                                ", step ", step, ": ", message),
                   {{"factor", identity.factor}, {"tower", absl::StrCat(identity.tower)}});
}

}  // namespace

UpdateStream::Impl::Impl(v1::FactorService::StubInterface& stub, const std::string& client_id,
                         uint64_t stream, const UpdateStreamOptions& options)
    : max_frame_(std::clamp<int64_t>(options.max_frame, 1, kLargestMaxFrame)) {
  context_.set_initial_metadata_corked(true);  // travels with hello
  call_ = stub.Update(&context_);
  v1::UpdateRequest request;
  request.mutable_hello()->set_client_id(client_id);
  request.mutable_hello()->set_stream(stream);
  {
    MutexLock lock(&wire_);
    Send(request);
  }
  reader_ = std::thread([this] { ReadAnswers(); });
}

UpdateStream::Impl::~Impl() { Close(absl::ZeroDuration()).IgnoreError(); }

// ---- Answers

void UpdateStream::Impl::ReadAnswers() {
  v1::UpdateResponse response;
  while (call_->Read(&response)) {
    MutexLock lock(&mutex_);
    Handle(response);
  }
  absl::Status last;
  {
    MutexLock lock(&wire_);  // the writes under way fail now; none comes after
    writable_ = false;
    last = FromGrpc(call_->Finish());
  }
  MutexLock lock(&mutex_);
  last_ = last;
  if (closed_) {
    end_ = absl::CancelledError("the stream of updates was closed");
  } else {
    end_ = last.ok() ? absl::UnavailableError("the server ended the stream of updates") : last;
  }
  for (auto& [key, tower] : towers_) {
    tower->state.End(*end_);
    tower->changed.NotifyAll();
  }
  ended_.NotifyAll();
}

UpdateStream::Impl::Tower* UpdateStream::Impl::Find(const std::string& factor, int tower) {
  const auto found = towers_.find({factor, tower});
  return found == towers_.end() ? nullptr : found->second.get();
}

void UpdateStream::Impl::Handle(const v1::UpdateResponse& response) {
  switch (response.answer_case()) {
    case v1::UpdateResponse::kOpened: {
      const v1::Progress& progress = response.opened().progress();
      if (Tower* tower = Find(progress.factor(), progress.tower())) {
        tower->state.OnOpened(progress);
        tower->changed.NotifyAll();
      }
      break;
    }
    case v1::UpdateResponse::kAck: {
      const v1::Progress& progress = response.ack().progress();
      if (Tower* tower = Find(progress.factor(), progress.tower())) {
        tower->state.OnAck(progress);
        tower->changed.NotifyAll();
      }
      break;
    }
    case v1::UpdateResponse::kRefused:
      HandleRefused(response.refused());
      break;
    case v1::UpdateResponse::kHold: {
      // A server that limits open steps discards the batch; to this client that is a refusal which
      // passes.
      v1::Refused refused;
      refused.set_factor(response.hold().factor());
      refused.set_step(response.hold().step());
      refused.set_tower(response.hold().tower());
      refused.mutable_status()->set_code(static_cast<int>(absl::StatusCode::kUnavailable));
      refused.mutable_status()->set_message(
          absl::StrCat("factor \"", refused.factor(), "\", step ", refused.step(),
                       ": the server has no room for the batch yet; write it again later"));
      HandleRefused(refused);
      break;
    }
    case v1::UpdateResponse::ANSWER_NOT_SET:
      break;  // of a later version
  }
}

void UpdateStream::Impl::HandleRefused(const v1::Refused& refused) {
  Tower* tower = Find(refused.factor(), refused.tower());
  if (tower == nullptr) return;
  const absl::Status status = FromProto(refused.status());
  if (refused.step() > 0) {
    tower->state.OnRefused(refused.step(), status);
  } else if (!tower->state.opened()) {
    tower->state.End(status);
  }
  tower->changed.NotifyAll();
}

// ---- Calls

bool UpdateStream::Impl::Send(const v1::UpdateRequest& request) {
  return writable_ && call_->Write(request);
}

absl::Status UpdateStream::Impl::AwaitEnd() {
  MutexLock lock(&mutex_);
  while (!end_) ended_.WaitUntil(&mutex_, absl::InfiniteFuture());
  return *end_;
}

absl::StatusOr<std::shared_ptr<UpdateStream::Impl::Tower>> UpdateStream::Impl::Open(
    const std::string& factor, int tower, const OpenOptions& options) {
  const absl::Time deadline = absl::Now() + options.timeout;
  const auto opening = std::make_shared<Tower>(factor, tower);
  {
    MutexLock lock(&mutex_);
    if (end_) return *end_;
    std::shared_ptr<Tower>& known = towers_[{factor, tower}];
    if (known != nullptr) {
      known->state.End(absl::AbortedError(
          absl::StrCat("factor \"", factor, "\", tower ", tower, ": was opened anew")));
      known->changed.NotifyAll();
    }
    known = opening;
  }
  v1::UpdateRequest request;
  request.mutable_open()->set_factor(factor);
  request.mutable_open()->set_tower(tower);
  request.mutable_open()->set_take_over(options.take_over);
  bool sent;
  {
    MutexLock lock(&wire_);
    sent = Send(request);
  }
  if (!sent) return AwaitEnd();

  MutexLock lock(&mutex_);
  TowerState& state = opening->state;
  while (!state.opened() && !state.ended()) {
    if (!opening->changed.WaitUntil(&mutex_, deadline)) {
      state.End(TimedOut({.factor = factor, .tower = tower}, 0, "the server did not answer open"));
    }
  }
  if (!state.opened()) {
    const auto known = towers_.find({factor, tower});
    if (known != towers_.end() && known->second == opening) towers_.erase(known);
    return state.end();
  }
  return opening;
}

absl::StatusOr<int64_t> UpdateStream::Impl::AwaitRoom(Tower& tower, const BatchIdentity& identity,
                                                      absl::Time deadline) {
  MutexLock lock(&mutex_);
  TowerState& state = tower.state;
  bool in_time = true;
  while (true) {
    if (absl::Status refusal = state.TakeRefusal(); !refusal.ok()) return refusal;
    if (state.ended()) return state.end();
    if (state.has_room()) return state.next_step();
    if (!in_time) {
      return TimedOut(identity, state.next_step(),
                      absl::StrCat("cannot be sent yet: step ", state.progress().next(),
                                   " has not ended and the window is ", state.progress().window(),
                                   " steps; another tower lags"));
    }
    in_time = tower.changed.WaitUntil(&mutex_, deadline);
  }
}

absl::StatusOr<int64_t> UpdateStream::Impl::Write(Tower& tower, BatchIdentity identity,
                                                  const Batch& batch, const StepOptions& options,
                                                  absl::Time deadline) {
  std::optional<BatchFrames> frames;
  while (!frames) {
    const absl::StatusOr<int64_t> step = AwaitRoom(tower, identity, deadline);
    if (!step.ok()) return step;
    identity.step = *step;
    identity.incarnation = ProgressOf(tower).incarnation();
    absl::StatusOr<BatchFrames> made = BatchFrames::Make(identity, batch, options, max_frame_);
    if (!made.ok()) return made.status();
    MutexLock lock(&mutex_);  // a refusal may have come while the digest was taken
    if (tower.state.next_step() == *step) {
      tower.state.BeginStep();
      frames = *std::move(made);
    }
  }
  bool sent = true;
  {
    MutexLock lock(&wire_);
    v1::UpdateRequest request;
    while (sent && frames->Next(request)) sent = Send(request);
  }
  if (!sent) return AwaitEnd();
  MutexLock lock(&mutex_);
  if (absl::Status refusal = tower.state.TakeRefusal(); !refusal.ok()) return refusal;
  return identity.step;
}

absl::Status UpdateStream::Impl::WaitEnded(Tower& tower, int64_t step, absl::Time deadline) {
  MutexLock lock(&mutex_);
  bool in_time = true;
  while (true) {
    if (std::optional<absl::Status> outcome = tower.state.Outcome(step)) return *outcome;
    if (!in_time) {
      const v1::Progress& progress = tower.state.progress();
      return TimedOut({.factor = progress.factor(), .tower = progress.tower()}, step,
                      "has not ended in time");
    }
    in_time = tower.changed.WaitUntil(&mutex_, deadline);
  }
}

int64_t UpdateStream::Impl::NextStep(const Tower& tower) const {
  MutexLock lock(&mutex_);
  return tower.state.next_step();
}

v1::Progress UpdateStream::Impl::ProgressOf(const Tower& tower) const {
  MutexLock lock(&mutex_);
  return tower.state.progress();
}

// ---- The end

absl::Status UpdateStream::Impl::status() const {
  MutexLock lock(&mutex_);
  return end_.value_or(absl::OkStatus());
}

absl::Status UpdateStream::Impl::Close(absl::Duration timeout) {
  MutexLock closing(&closing_);
  if (reader_.joinable()) {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    // Bounds all that follows: once the call is cancelled, every operation on it returns.
    std::thread watchdog([this, deadline = absl::Now() + timeout] {
      MutexLock lock(&mutex_);
      while (!end_ && ended_.WaitUntil(&mutex_, deadline)) {
      }
      if (!end_) context_.TryCancel();
    });
    {
      MutexLock lock(&wire_);
      if (writable_) call_->WritesDone();
      writable_ = false;
    }
    reader_.join();
    watchdog.join();
  }
  MutexLock lock(&mutex_);
  return last_;
}

}  // namespace fisherd
