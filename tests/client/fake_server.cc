#include "tests/client/fake_server.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fisherd {

FakeServer::FakeServer(const std::string& address) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // as fisherd: small, fixed windows
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

Client FakeServer::Connect() {
  absl::StatusOr<Client> client = Client::Connect(address_);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

grpc::Status FakeServer::Update(grpc::ServerContext*, UpdateCall* call) {
  {
    std::lock_guard lock(mutex_);
    call_ = call;
  }
  std::optional<grpc::Status> end;
  v1::UpdateRequest request;
  while (!end && call->Read(&request)) {
    {
      std::lock_guard lock(mutex_);
      messages_.push_back(request);
      changed_.notify_all();
    }
    if (const auto answer = on_update.Get()) {
      std::lock_guard writing(write_mutex_);
      end = answer(request, *call);
    }
    std::lock_guard lock(mutex_);
    if (request.has_end()) ++batches_;
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  call_ = nullptr;
  return end.value_or(grpc::Status::OK);
}

v1::UpdateRequest FakeServer::Message(size_t index) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return messages_.size() > index; });
  return messages_[index];
}

size_t FakeServer::messages() const {
  std::lock_guard lock(mutex_);
  return messages_.size();
}

void FakeServer::AwaitBatches(int count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return batches_ >= count; });
}

void FakeServer::Send(const v1::UpdateResponse& response) {
  std::lock_guard writing(write_mutex_);
  std::lock_guard lock(mutex_);
  ASSERT_NE(call_, nullptr);
  call_->Write(response);
}

grpc::Status Error(grpc::StatusCode code, const std::string& reason, const std::string& message,
                   const std::string& factor, int retry_ms) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("fisherd");
  (*info.mutable_metadata())["factor"] = factor;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(retry_ms / 1000);
  retry.mutable_retry_delay()->set_nanos(retry_ms % 1000 * 1000000);
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(info);
  details.add_details()->PackFrom(retry);
  return grpc::Status(code, message, details.SerializeAsString());
}

v1::Progress ProgressAt(int64_t next) {
  v1::Progress progress;
  progress.set_factor("f");
  progress.set_tower(0);
  progress.set_incarnation(7);
  progress.set_epoch(3);
  progress.set_towers(1);
  progress.set_next(next);
  progress.set_durable(next - 1);
  progress.set_open_through(next + 1);
  progress.set_window(2);
  progress.set_first(next);
  return progress;
}

v1::UpdateResponse OpenedAt(int64_t next) {
  v1::UpdateResponse response;
  *response.mutable_opened()->mutable_progress() = ProgressAt(next);
  return response;
}

v1::UpdateResponse AckAt(int64_t next) {
  v1::UpdateResponse response;
  *response.mutable_ack()->mutable_progress() = ProgressAt(next);
  return response;
}

v1::UpdateResponse HoldAt(int64_t step) {
  v1::UpdateResponse response;
  response.mutable_hold()->set_factor("f");
  response.mutable_hold()->set_step(step);
  return response;
}

v1::UpdateResponse RefusedAt(int64_t step, grpc::StatusCode code, const std::string& reason,
                             const std::string& message) {
  v1::UpdateResponse response;
  v1::Refused& refused = *response.mutable_refused();
  refused.set_factor("f");
  refused.set_step(step);
  refused.set_tower(0);
  refused.mutable_status()->ParseFromString(Error(code, reason, message).error_details());
  return response;
}

}  // namespace fisherd
