// The thread of an UpdateStream that connects, listens, and connects again.

#include "absl/strings/str_cat.h"
#include "client/cpp/channel.h"
#include "client/cpp/errors.h"
#include "client/cpp/update_stream_impl.h"
#include "grpcpp/channel.h"

namespace fisherd {
namespace {

// For each word at the server's door. Meanwhile nobody reads answers.
constexpr absl::Duration kDoorTimeout = absl::Seconds(1);

// How long a cut stream waits for the connection before it makes a call all the same, and how often
// it sees meanwhile whether it is still wanted.
constexpr absl::Duration kConnectPatience = absl::Seconds(2);
constexpr absl::Duration kConnectSlice = absl::Milliseconds(20);

absl::Status AsError(const absl::Status& last) {
  return last.ok() ? absl::UnavailableError("the server ended the stream of updates") : last;
}

}  // namespace

void UpdateStream::Impl::Run() {
  down_since_ = absl::Now();
  while (const std::shared_ptr<Call> call = Connect()) {
    const bool answered = ReadAnswers(*call);
    if (!AwaitNextAttempt(Finish(*call), answered)) return;
    AwaitConnection();
  }
}

// gRPC goes on with a connection only while somebody waits for it, else every 5 s; and a call does
// not wait, but fails at once.
void UpdateStream::Impl::AwaitConnection() {
  const absl::Time patience = absl::Now() + kConnectPatience;
  while (absl::Now() < patience &&
         !channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + kConnectSlice))) {
    MutexLock lock(&mutex_);
    if (closed_ || end_) return;
  }
}

std::shared_ptr<UpdateStream::Impl::Call> UpdateStream::Impl::Connect() {
  const auto call = std::make_shared<Call>();
  call->context.set_initial_metadata_corked(true);  // travels with hello
  v1::UpdateRequest request;
  request.mutable_hello()->set_client_id(client_->id);
  request.mutable_hello()->set_stream(++client_->grpc_streams);
  {
    MutexLock lock(&mutex_);
    // After the number was drawn: so a newer UpdateStream has a higher one, and is not closed by
    // it.
    if (client_->streams != serial_) {
      last_ = MakeError(absl::StatusCode::kAborted, "STREAM_SUPERSEDED",
                        "this client has opened a newer stream of updates");
      EndAll(last_);
      return nullptr;
    }
    call_ = call;
    if (abandoned_) call->context.TryCancel();
  }
  call->stream = stub_->Update(&call->context);
  {
    MutexLock wire(&wire_);
    if (!call->stream->Write(request)) return call;
  }
  MutexLock lock(&mutex_);
  greeted_ = true;
  for (auto& [key, tower] : towers_) {
    tower->to_open = true;
    Queue(tower);
  }
  half_full_ = false;  // the server before may have heard of it, not this one
  work_.NotifyAll();
  return call;
}

bool UpdateStream::Impl::ReadAnswers(Call& call) {
  bool answered = false;
  v1::UpdateResponse response;
  while (call.stream->Read(&response)) {
    if (!std::exchange(answered, true)) ShareMemory(call);
    MutexLock lock(&mutex_);
    Handle(response);
  }
  return answered;
}

void UpdateStream::Impl::ShareMemory(Call& call) {
  std::shared_ptr<SharedMemory> memory;
  {
    MutexLock lock(&mutex_);
    memory = memory_;
  }
  if (memory != nullptr) memory->OnNewStream();
  const auto& metadata = call.context.GetServerInitialMetadata();
  const auto announced = metadata.find(kSharedMemoryKey);
  if (options_.shared_memory <= 0 || announced == metadata.end() ||
      !IsLocalPeer(call.context.peer())) {
    return;
  }
  const std::string_view announcement(announced->second.data(), announced->second.size());
  if (memory == nullptr) memory = SharedMemory::Create(options_.shared_memory).value_or(nullptr);
  if (memory == nullptr) return;
  if (door_ == nullptr || door_->announcement() != announcement || !door_->stands()) {
    door_ = nullptr;  // the server has room for it again
    door_ = SharedMemoryDoor::Enter(announcement, memory->fd(), kDoorTimeout).value_or(nullptr);
  }
  if (door_ == nullptr) return;
  MutexLock lock(&mutex_);
  memory_ = std::move(memory);
  call.region = door_->token();
}

absl::Status UpdateStream::Impl::Finish(Call& call) {
  MutexLock wire(&wire_);  // the write under way fails now; none comes after
  call.writable = false;
  return FromGrpc(call.stream->Finish());
}

std::optional<absl::Status> UpdateStream::Impl::EndAfter(const absl::Status& last,
                                                         bool read_everything) const {
  if (abandoned_ || (closed_ && (read_everything || AllSent()))) {
    return absl::CancelledError("the stream of updates was closed");
  }
  if (!MayPass(last) || absl::Now() - down_since_ >= options_.reconnect_timeout) {
    return AsError(last);
  }
  return std::nullopt;
}

bool UpdateStream::Impl::AwaitNextAttempt(const absl::Status& last, bool answered) {
  MutexLock lock(&mutex_);
  const bool read_everything = done_writing_ && last.ok() && AllSent();
  call_ = nullptr;
  greeted_ = false;
  done_writing_ = false;
  last_ = last;
  for (auto& [key, tower] : towers_) tower->state.OnCut();
  if (answered || towers_.empty()) {
    down_since_ = absl::Now();
    backoff_.Reset();
  }
  const absl::Time next = absl::Now() + backoff_.Next(last);
  std::optional<absl::Status> end = EndAfter(last, read_everything);
  while (!end && ended_.WaitUntil(&mutex_, next)) end = EndAfter(last, read_everything);
  if (!end) return true;
  if (abandoned_ && last.ok()) {
    last_ = absl::UnavailableError("not all that was written has reached the server");
  }
  EndAll(*end);
  return false;
}

void UpdateStream::Impl::EndAll(const absl::Status& end) {
  end_ = end;
  for (auto& [key, tower] : towers_) {
    buffered_bytes_ -= tower->state.bytes();
    tower->state.End(end);
    tower->changed.NotifyAll();
  }
  ready_.clear();
  space_.NotifyAll();
  work_.NotifyAll();
  ended_.NotifyAll();
}

// ---- Answers

void UpdateStream::Impl::Changed(const std::shared_ptr<Tower>& tower, int64_t bytes_before) {
  buffered_bytes_ += tower->state.bytes() - bytes_before;
  if (buffered_bytes_ <= options_.max_buffered_bytes / 2) half_full_ = false;
  tower->changed.NotifyAll();
  space_.NotifyAll();
  if (closed_) work_.NotifyAll();
  if (tower->state.step_to_send() > 0) Queue(tower);
  if (!tower->state.ended()) return;
  const auto known = towers_.find({tower->identity.factor, tower->identity.tower});
  if (known != towers_.end() && known->second == tower) towers_.erase(known);
}

template <typename Message, typename Change>
void UpdateStream::Impl::Apply(const Message& about, Change change) {
  const auto found = towers_.find({about.factor(), about.tower()});
  if (found == towers_.end()) return;
  const std::shared_ptr<Tower> tower = found->second;  // Changed may erase it
  const int64_t bytes = tower->state.bytes();
  change(tower->state);
  Changed(tower, bytes);
}

void UpdateStream::Impl::FreeShared(const v1::Progress& progress) {
  if (memory_ == nullptr) return;
  memory_->OnEnded({progress.factor(), progress.tower()}, progress.incarnation(), progress.next());
}

void UpdateStream::Impl::OpenAgain(const v1::Refused& refused) {
  const auto found = towers_.find({refused.factor(), refused.tower()});
  if (refused.step() != 0 || found == towers_.end()) return;
  found->second->to_open = true;
  Queue(found->second);
}

void UpdateStream::Impl::Handle(const v1::UpdateResponse& response) {
  const v1::Progress& opened = response.opened().progress();
  const v1::Progress& ack = response.ack().progress();
  const v1::Hold& hold = response.hold();
  const v1::Refused& refused = response.refused();
  switch (response.answer_case()) {
    case v1::UpdateResponse::kOpened:
      Apply(opened, [&](TowerState& state) { state.OnOpened(opened); });
      return FreeShared(opened);
    case v1::UpdateResponse::kAck:
      Apply(ack, [&](TowerState& state) { state.OnAck(ack); });
      return FreeShared(ack);
    case v1::UpdateResponse::kHold:
      return Apply(hold, [&](TowerState& state) { state.OnHold(hold.step()); });
    case v1::UpdateResponse::kRefused:
      Apply(refused, [&](TowerState& state) {
        state.OnRefused(refused.step(), FromProto(refused.status()));
      });
      return OpenAgain(refused);
    case v1::UpdateResponse::ANSWER_NOT_SET:
      return;  // of a later version
  }
}

}  // namespace fisherd
