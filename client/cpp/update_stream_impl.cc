#include "client/cpp/update_stream_impl.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "client/cpp/errors.h"

namespace fisherd {
namespace {

constexpr absl::Duration kDescribeTimeout = absl::Seconds(30);

// Of memory that is kept for the batches to come.
constexpr int64_t kPooledBytes = int64_t{96} << 20;

absl::Status Closed() { return absl::CancelledError("the stream of updates was closed"); }

BatchIdentity OfStep(const BatchIdentity& tower, int64_t step) {
  BatchIdentity identity = tower;
  identity.step = step;
  return identity;
}

// Whatever the factor is: known without asking for it.
int64_t LeastContributionBytes(const Batch& batch) {
  const int64_t outputs = batch.outputs_grads.empty() ? 0 : batch.outputs_grads[0].cols();
  return batch.inputs.cols() * outputs * static_cast<int64_t>(sizeof(float));
}

}  // namespace

UpdateStream::Impl::Impl(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<Stub> stub,
                         std::shared_ptr<ClientIdentity> client, const UpdateStreamOptions& options)
    : channel_(std::move(channel)),
      stub_(std::move(stub)),
      client_(std::move(client)),
      serial_(++client_->streams),
      options_(options),
      pool_(std::make_shared<BufferPool>(kPooledBytes)),
      backoff_(options.first_reconnect_delay, options.max_reconnect_delay) {
  connector_ = std::thread([this] { Run(); });
  sender_ = std::thread([this] { SendReady(); });
}

UpdateStream::Impl::~Impl() { Close(absl::ZeroDuration()).IgnoreError(); }

// ---- Open

absl::StatusOr<std::shared_ptr<UpdateStream::Impl::Tower>> UpdateStream::Impl::Open(
    const std::string& factor, int tower, const OpenOptions& options) {
  const absl::Time deadline = absl::Now() + options.timeout;
  const auto opening = std::make_shared<Tower>(factor, tower, options.take_over);
  {
    MutexLock lock(&mutex_);
    if (end_) return *end_;
    if (closed_) return Closed();
    std::shared_ptr<Tower>& known = towers_[{factor, tower}];
    if (const std::shared_ptr<Tower> before = std::exchange(known, opening)) {
      const int64_t bytes = before->state.bytes();
      before->state.End(
          BatchError(absl::StatusCode::kAborted, "", before->identity, "was opened anew"));
      Changed(before, bytes);
    }
  }
  Pump(*opening, 0);

  MutexLock lock(&mutex_);
  TowerState& state = opening->state;
  bool in_time = true;
  while (!state.opened() && !state.ended()) {
    if (!in_time) {
      state.End(greeted_ ? BatchError(absl::StatusCode::kDeadlineExceeded, "", opening->identity,
                                      "the server did not answer open")
                         : BatchError(absl::StatusCode::kUnavailable, "", opening->identity,
                                      absl::StrCat("cannot be opened", WhyNothingComes())));
      break;
    }
    in_time = opening->changed.WaitUntil(&mutex_, deadline);
  }
  if (state.opened()) return opening;
  const auto known = towers_.find({factor, tower});
  if (known != towers_.end() && known->second == opening) towers_.erase(known);
  return state.end();
}

// ---- Write

absl::StatusOr<BatchIdentity> UpdateStream::Impl::AwaitRoom(Tower& tower, int64_t bytes,
                                                            absl::Time deadline) {
  const int64_t bound = options_.max_buffered_bytes;
  TowerState& state = tower.state;
  MutexLock lock(&mutex_);
  bool in_time = true;
  while (true) {
    if (absl::Status refusal = state.TakeRefusal(); !refusal.ok()) return refusal;
    if (state.ended()) return state.end();
    if (closed_) return Closed();
    if (absl::Status late = state.SkipLateStep(); !late.ok()) return late;
    BatchIdentity identity = OfStep(tower.identity, state.next_step());
    const bool full = buffered_bytes_ + bytes > bound;
    if (bytes > bound) {
      return BatchError(
          absl::StatusCode::kResourceExhausted, "CLIENT_BUFFER", identity,
          absl::StrCat("the batch is ", bytes, " bytes, but max_buffered_bytes is ", bound));
    }
    if (state.has_room() && !full) {
      buffered_bytes_ += bytes;
      WantDurableIfHalfFull();
      identity.incarnation = state.incarnation();
      return identity;
    }
    if (!in_time && state.has_room()) {
      return BatchError(absl::StatusCode::kResourceExhausted, "CLIENT_BUFFER", identity,
                        absl::StrCat("the batch is ", bytes, " bytes, and ", buffered_bytes_,
                                     " of max_buffered_bytes, ", bound, ", hold batches that are ",
                                     "not durable yet", WhyNothingComes()));
    }
    if (!in_time) {
      const v1::Progress progress = state.progress();
      return BatchError(absl::StatusCode::kDeadlineExceeded, "", identity,
                        absl::StrCat("cannot be sent yet: step ", progress.next(),
                                     " has not ended and the window is ", progress.window(),
                                     " steps; another tower lags", WhyNothingComes()));
    }
    if (full) WantDurableIfHalfFull();
    in_time = (state.has_room() ? space_ : tower.changed).WaitUntil(&mutex_, deadline);
  }
}

void UpdateStream::Impl::WantDurableIfHalfFull() {
  if (buffered_bytes_ <= options_.max_buffered_bytes / 2 || std::exchange(half_full_, true)) return;
  to_want_durable_ = true;
  work_.NotifyAll();
}

void UpdateStream::Impl::SendWantDurable() {
  MutexLock wire(&wire_);
  std::shared_ptr<Call> call;
  {
    MutexLock lock(&mutex_);
    if (greeted_ && !done_writing_) call = call_;
  }
  v1::UpdateRequest request;
  request.mutable_want_durable();
  if (call != nullptr && call->writable) call->stream->Write(request);
}

void UpdateStream::Impl::Release(int64_t bytes) {
  buffered_bytes_ -= bytes;
  space_.NotifyAll();
}

std::shared_ptr<SharedMemory> UpdateStream::Impl::MemoryToShare() const {
  MutexLock lock(&mutex_);
  return call_ == nullptr || call_->region.empty() ? nullptr : memory_;
}

absl::StatusOr<int64_t> UpdateStream::Impl::Write(Tower& tower, const Batch& batch,
                                                  const StepOptions& options, absl::Time deadline) {
  Contribution storage;
  const absl::StatusOr<BatchTensors> tensors = Reduce(tower, batch, options, storage);
  if (!tensors.ok()) return tensors.status();
  const int64_t bytes = tensors->bytes();
  const int64_t max_frame = std::clamp<int64_t>(options_.max_frame, 1, kLargestMaxFrame);
  int64_t step = 0;
  bool large = false;
  while (step == 0) {
    const absl::StatusOr<BatchIdentity> identity = AwaitRoom(tower, bytes, deadline);
    if (!identity.ok()) return identity.status();
    const auto begun =
        BeginBatch(*identity, *tensors, options, max_frame, pool_, MemoryToShare().get());
    if (begun.ok() && (*begun)->messages.size() == 1) FillBatch(*tensors, **begun);
    {
      MutexLock lock(&mutex_);
      // A refusal, or the end, may have come meanwhile.
      if (begun.ok() && !tower.state.ended() && tower.state.next_step() == identity->step) {
        tower.state.Push(*begun);  // the bytes that were reserved
        step = identity->step;
        large = (*begun)->messages.size() > 1;
        if (large) Queue(tower.shared_from_this());
      } else {
        Release(bytes);
        if (!begun.ok()) return begun.status();
      }
    }
    // Its first messages are on their way while the others are copied.
    if (large) FillBatch(*tensors, **begun);
  }
  if (!large) Pump(tower, step);
  MutexLock lock(&mutex_);
  if (absl::Status refusal = tower.state.TakeRefusal(); !refusal.ok()) return refusal;
  if (abandoned_) return Closed();
  return step;
}

absl::StatusOr<BatchTensors> UpdateStream::Impl::Reduce(Tower& tower, const Batch& batch,
                                                        const StepOptions& options,
                                                        Contribution& storage) {
  const BatchIdentity identity = OfStep(tower.identity, NextStep(tower));
  absl::StatusOr<BatchTensors> raw = RawTensors(identity, batch);
  if (!raw.ok() || options_.form == v1::BATCH_FORM_RAW) return raw;
  const bool smaller_wins = options_.form == v1::BATCH_FORM_UNSPECIFIED;
  if (smaller_wins && raw->bytes() <= LeastContributionBytes(batch)) return raw;
  const double scale = options.gradient_scale.value_or(1);
  if (!std::isfinite(scale) || scale <= 0) return raw;  // the server says what is wrong
  if (!tower.described) {
    absl::Status status = Describe(tower);
    if (!status.ok() && smaller_wins) return raw;  // the stream may still stand, or come back
    if (!status.ok()) return status;
  }
  if (!tower.shape || !Fits(batch, *tower.shape)) return raw;
  if (smaller_wins && raw->bytes() <= tower.shape->bytes()) return raw;
  absl::StatusOr<Contribution> made = MakeContribution(identity, batch, *tower.shape, scale);
  if (!made.ok()) return made.status();
  storage = *std::move(made);
  return ContributionTensors(storage.view(), raw->rows, storage.examples);
}

absl::Status UpdateStream::Impl::Describe(Tower& tower) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kDescribeTimeout));
  v1::DescribeFactorRequest request;
  request.set_name(tower.identity.factor);
  v1::DescribeFactorResponse response;
  const grpc::Status status = stub_->DescribeFactor(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  tower.shape = LayerShapeOf(response.factor().spec());
  tower.described = true;
  return absl::OkStatus();
}

// ---- Wait

absl::Status UpdateStream::Impl::WaitEnded(Tower& tower, int64_t step, absl::Time deadline) {
  return WaitOutcome(tower, step, deadline, &TowerState::Outcome);
}

absl::Status UpdateStream::Impl::WaitDurable(Tower& tower, int64_t step, absl::Time deadline) {
  return WaitOutcome(tower, step, deadline, &TowerState::DurableOutcome);
}

absl::Status UpdateStream::Impl::WaitOutcome(
    Tower& tower, int64_t step, absl::Time deadline,
    std::optional<absl::Status> (TowerState::*outcome)(int64_t)) {
  MutexLock lock(&mutex_);
  bool in_time = true;
  while (true) {
    if (std::optional<absl::Status> known = (tower.state.*outcome)(step)) return *known;
    if (!in_time) {
      const bool counted = tower.state.Outcome(step).has_value();
      return BatchError(absl::StatusCode::kDeadlineExceeded, "", OfStep(tower.identity, step),
                        absl::StrCat(counted ? "is not durable yet" : "has not ended in time",
                                     WhyNothingComes()));
    }
    in_time = tower.changed.WaitUntil(&mutex_, deadline);
  }
}

std::string UpdateStream::Impl::WhyNothingComes() const {
  if (greeted_) return "";
  return absl::StrCat("; the server cannot be reached",
                      last_.ok() ? "" : absl::StrCat(": ", last_.message()));
}

int64_t UpdateStream::Impl::NextStep(const Tower& tower) const {
  MutexLock lock(&mutex_);
  return tower.state.next_step();
}

v1::Progress UpdateStream::Impl::ProgressOf(const Tower& tower) const {
  MutexLock lock(&mutex_);
  return tower.state.progress();
}

UpdateStats UpdateStream::Impl::StatsOf(const Tower& tower) const {
  MutexLock lock(&mutex_);
  return tower.state.stats();
}

// ---- Sending

void UpdateStream::Impl::Queue(const std::shared_ptr<Tower>& tower) {
  if (std::exchange(tower->queued, true)) return;
  ready_.push_back(tower);
  work_.NotifyAll();
}

bool UpdateStream::Impl::AllSent() const {
  return std::ranges::all_of(towers_,
                             [](const auto& entry) { return entry.second->state.all_sent(); });
}

void UpdateStream::Impl::SendReady() {
  while (true) {
    std::shared_ptr<Tower> tower;
    std::shared_ptr<Call> to_close;
    bool want_durable = false;
    {
      MutexLock lock(&mutex_);
      while (!end_ && ready_.empty() && to_close == nullptr && !to_want_durable_) {
        if (closed_ && greeted_ && !done_writing_ && AllSent()) {
          done_writing_ = true;
          to_close = call_;
        } else {
          work_.WaitUntil(&mutex_, absl::InfiniteFuture());
        }
      }
      if (end_) return;
      want_durable = std::exchange(to_want_durable_, false);
      if (to_close == nullptr && !ready_.empty()) {
        tower = std::move(ready_.front());
        ready_.pop_front();
        tower->queued = false;
      }
    }
    if (want_durable) SendWantDurable();
    if (tower != nullptr) {
      Pump(*tower, std::numeric_limits<int64_t>::max());
    } else if (to_close != nullptr) {
      MutexLock wire(&wire_);
      if (to_close->writable) to_close->stream->WritesDone();
    }
  }
}

void UpdateStream::Impl::Pump(Tower& tower, int64_t through) {
  {
    MutexLock lock(&mutex_);
    if (!greeted_) return;  // rather than wait for a connection
  }
  MutexLock wire(&wire_);
  while (true) {
    std::shared_ptr<Call> call;
    std::shared_ptr<const EncodedBatch> batch;
    std::string region;
    v1::UpdateRequest open;
    {
      MutexLock lock(&mutex_);
      if (!greeted_ || done_writing_ || tower.state.ended()) return;
      call = call_;
      if (std::exchange(tower.to_open, false)) {
        *open.mutable_open() = tower.state.MakeOpen();
      } else {
        if (tower.state.step_to_send() > through) return;
        region = call->region;
        batch = tower.state.TakeToSend(!region.empty());
        if (batch == nullptr) return;
        if (closed_) work_.NotifyAll();
      }
    }
    if (!call->writable) return;
    if (batch == nullptr) {
      if (!call->stream->Write(open)) return;
      continue;
    }
    for (size_t i = 0; i < batch->messages.size(); ++i) {
      const v1::UpdateRequest& message = batch->Filled(i);
      const bool sent = batch->block == nullptr
                            ? call->stream->Write(message)
                            : call->stream->Write(batch->Addressed(message, region));
      if (!sent) return;
    }
  }
}

// ---- The end

absl::Status UpdateStream::Impl::status() const {
  MutexLock lock(&mutex_);
  return end_.value_or(absl::OkStatus());
}

absl::Status UpdateStream::Impl::Close(absl::Duration timeout) {
  MutexLock closing(&closing_);
  if (connector_.joinable()) {
    const absl::Time deadline = absl::Now() + timeout;
    {
      MutexLock lock(&mutex_);
      closed_ = true;
      for (auto& [key, tower] : towers_) tower->changed.NotifyAll();
      space_.NotifyAll();
      work_.NotifyAll();
      ended_.NotifyAll();
      while (!end_ && ended_.WaitUntil(&mutex_, deadline)) {
      }
      if (!end_) {
        abandoned_ = true;
        if (call_ != nullptr) call_->context.TryCancel();
        ended_.NotifyAll();
      }
    }
    connector_.join();
    sender_.join();
  }
  MutexLock lock(&mutex_);
  return last_;
}

}  // namespace fisherd
