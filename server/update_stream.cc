#include "server/update_stream.h"

#include <string_view>
#include <utility>
#include <vector>

#include "grpcpp/support/slice.h"
#include "server/status.h"

namespace fisherd::server {

UpdateStream* UpdateStream::Start(core::FactorRegistry& registry, SessionTable& sessions,
                                  const SharedRegions* regions, const Caller& caller,
                                  std::shared_ptr<void> place,
                                  std::unique_ptr<CountedCall> counted) {
  const std::shared_ptr<UpdateStream> stream(new UpdateStream);
  stream->self_ = stream;
  stream->place_ = std::move(place);
  stream->counted_ = std::move(counted);
  // Others may wake the session at any time, also when the stream is no more.
  const auto wake = [weak = std::weak_ptr<UpdateStream>(stream)] {
    if (const auto woken = weak.lock()) woken->Proceed();
  };
  stream->session_ = std::make_shared<Session>(registry, sessions, wake, regions, caller);
  if (absl::Status status = sessions.Add(stream->session_); !status.ok()) {
    stream->session_->Close(std::move(status));
  }
  stream->Proceed();
  return stream.get();
}

void UpdateStream::OnReadDone(bool ok) {
  if (ok && counted_ != nullptr) counted_->Received();
  const absl::Status status = ok ? ReceiveRequest() : absl::OkStatus();
  {
    core::MutexLock lock(&mutex_);
    reading_ = false;
    client_is_done_ = !ok;
    if (!status.ok()) end_ = status;
  }
  Proceed();
}

absl::Status UpdateStream::ReceiveRequest() {
  std::vector<grpc::Slice> slices;
  if (const grpc::Status status = request_.Dump(&slices); !status.ok()) {
    return absl::InternalError(status.error_message());
  }
  std::vector<std::string_view> pieces;
  pieces.reserve(slices.size());
  for (const grpc::Slice& slice : slices) {
    pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  absl::Status status = session_->Receive(pieces);
  request_.Clear();
  return status;
}

void UpdateStream::OnWriteDone(bool ok) {
  {
    core::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) end_ = absl::CancelledError("the stream is broken");
  }
  Proceed();
}

void UpdateStream::OnCancel() {
  {
    core::MutexLock lock(&mutex_);
    end_ = absl::CancelledError("the stream was cancelled");
  }
  Proceed();
}

void UpdateStream::OnDone() { self_.reset(); }

void UpdateStream::Proceed() {
  absl::Status end;
  {
    core::MutexLock lock(&mutex_);
    if (!StartOperations()) return;
    finished_ = true;
    end = *end_;
  }
  // First, so that whoever learns of the end finds the claims gone.
  session_->Close(end);
  const grpc::Status status = ToGrpcStatus(end);
  if (counted_ != nullptr) counted_->End(status.error_code());
  Finish(status);
}

bool UpdateStream::StartOperations() {
  if (finished_) return false;
  if (!end_.has_value()) end_ = session_->closed();
  if (!end_.has_value() && !writing_) {
    if (const auto answer = session_->NextAnswer()) {
      const grpc::Slice slice(answer->SerializeAsString());
      response_ = grpc::ByteBuffer(&slice, 1);
      writing_ = true;
      if (counted_ != nullptr) counted_->Sent();
      StartWrite(&response_);
    } else if (client_is_done_) {
      end_ = absl::OkStatus();
    }
  }
  if (end_.has_value()) return !writing_;
  if (!reading_ && !client_is_done_ && session_->WantsMessage()) {
    reading_ = true;
    StartRead(&request_);
  }
  return false;
}

}  // namespace fisherd::server
