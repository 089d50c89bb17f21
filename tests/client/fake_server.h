// A FactorService played by the test, over TCP on loopback: it records what the client sends and
// answers what the test says.

#ifndef FISHERD_TESTS_CLIENT_FAKE_SERVER_H_
#define FISHERD_TESTS_CLIENT_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fisherd/client.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {

// A value that gRPC's threads and the test's share.
template <typename T>
class Shared {
 public:
  Shared() = default;
  explicit Shared(T value) : value_(std::move(value)) {}
  void Set(T value) {
    std::lock_guard lock(mutex_);
    value_ = std::move(value);
  }
  T Get() const {
    std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  mutable std::mutex mutex_;
  T value_{};
};

// A function that the test sets and gRPC's threads call.
template <typename Signature>
class Handler;
template <typename Result, typename... Arguments>
class Handler<Result(Arguments...)> {
 public:
  using Function = std::function<Result(Arguments...)>;
  Handler& operator=(Function function) {
    function_.Set(std::move(function));
    return *this;
  }
  Function Get() const { return function_.Get(); }
  Result operator()(Arguments... arguments) const { return Get()(arguments...); }

 private:
  Shared<Function> function_;
};

class FakeServer final : public v1::FactorService::Service {
 public:
  using UpdateCall = grpc::ServerReaderWriter<v1::UpdateResponse, v1::UpdateRequest>;
  using MultiplyCall = grpc::ServerReaderWriter<v1::MultiplyResponse, v1::MultiplyRequest>;

  // On a port of its own, or at the address of one that is gone.
  explicit FakeServer(const std::string& address = "127.0.0.1:0");
  ~FakeServer() override;

  const std::string& address() const { return address_; }
  Client Connect();

  // ---- What the test says. Set before the calls that need it.

  // Called in the stream's thread for every message after it was recorded; a status ends the
  // stream.
  Handler<std::optional<grpc::Status>(const v1::UpdateRequest&, UpdateCall&)> on_update;
  Handler<grpc::Status(const v1::ReadRequest&, grpc::ServerWriter<v1::ReadResponse>&)> on_read;
  Handler<grpc::Status(MultiplyCall&)> on_multiply;
  Handler<grpc::Status(const v1::WatchRequest&, grpc::ServerWriter<v1::WatchResponse>&)> on_watch;
  Handler<grpc::Status(const v1::CreateFactorRequest&, v1::CreateFactorResponse&)> on_create;
  Handler<grpc::Status(const v1::DescribeFactorRequest&, v1::DescribeFactorResponse&)> on_describe;
  Handler<grpc::Status(const v1::ListFactorsRequest&, v1::ListFactorsResponse&)> on_list;
  Handler<grpc::Status(const v1::ListDampingsRequest&, v1::ListDampingsResponse&)> on_list_dampings;
  Handler<grpc::Status(const v1::SetDampingRequest&)> on_set_damping;
  Handler<grpc::Status(const v1::DeleteDampingRequest&)> on_delete_damping;
  Handler<grpc::Status(const v1::DeleteFactorRequest&)> on_delete;
  Handler<grpc::Status(const v1::ResetFactorRequest&, v1::ResetFactorResponse&)> on_reset;
  Handler<grpc::Status(const v1::RegisterRequest&, v1::RegisterResponse&)> on_register;
  Handler<grpc::Status(const v1::UnregisterRequest&)> on_unregister;
  Handler<grpc::Status(const v1::UpdateInversesRequest&, v1::UpdateInversesResponse&)>
      on_update_inverses;
  Handler<grpc::Status(const v1::SetTowersRequest&, v1::SetTowersResponse&)> on_set_towers;

  // ---- The update stream, as the test sees it.

  // Waits for message number `index`, from 0, of all streams in the order of their arrival.
  v1::UpdateRequest Message(size_t index);
  size_t messages() const;
  // Waits until `count` batches are whole.
  void AwaitBatches(int count);
  // Sends on the newest stream.
  void Send(const v1::UpdateResponse& response);

 private:
  grpc::Status Update(grpc::ServerContext*, UpdateCall* call) override;
  grpc::Status Read(grpc::ServerContext*, const v1::ReadRequest* request,
                    grpc::ServerWriter<v1::ReadResponse>* writer) override {
    return on_read(*request, *writer);
  }
  grpc::Status Multiply(grpc::ServerContext*, MultiplyCall* call) override {
    return on_multiply(*call);
  }
  grpc::Status Watch(grpc::ServerContext*, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    return on_watch(*request, *writer);
  }
  grpc::Status CreateFactor(grpc::ServerContext*, const v1::CreateFactorRequest* request,
                            v1::CreateFactorResponse* response) override {
    return on_create(*request, *response);
  }
  grpc::Status DescribeFactor(grpc::ServerContext*, const v1::DescribeFactorRequest* request,
                              v1::DescribeFactorResponse* response) override {
    return on_describe(*request, *response);
  }
  grpc::Status ListFactors(grpc::ServerContext*, const v1::ListFactorsRequest* request,
                           v1::ListFactorsResponse* response) override {
    return on_list(*request, *response);
  }
  grpc::Status ListDampings(grpc::ServerContext*, const v1::ListDampingsRequest* request,
                            v1::ListDampingsResponse* response) override {
    return on_list_dampings(*request, *response);
  }
  grpc::Status SetDamping(grpc::ServerContext*, const v1::SetDampingRequest* request,
                          v1::SetDampingResponse*) override {
    return on_set_damping(*request);
  }
  grpc::Status DeleteDamping(grpc::ServerContext*, const v1::DeleteDampingRequest* request,
                             v1::DeleteDampingResponse*) override {
    return on_delete_damping(*request);
  }
  grpc::Status DeleteFactor(grpc::ServerContext*, const v1::DeleteFactorRequest* request,
                            v1::DeleteFactorResponse*) override {
    return on_delete(*request);
  }
  grpc::Status ResetFactor(grpc::ServerContext*, const v1::ResetFactorRequest* request,
                           v1::ResetFactorResponse* response) override {
    return on_reset(*request, *response);
  }
  grpc::Status Register(grpc::ServerContext*, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override {
    return on_register(*request, *response);
  }
  grpc::Status Unregister(grpc::ServerContext*, const v1::UnregisterRequest* request,
                          v1::UnregisterResponse*) override {
    return on_unregister(*request);
  }
  grpc::Status UpdateInverses(grpc::ServerContext*, const v1::UpdateInversesRequest* request,
                              v1::UpdateInversesResponse* response) override {
    return on_update_inverses(*request, *response);
  }
  grpc::Status SetTowers(grpc::ServerContext*, const v1::SetTowersRequest* request,
                         v1::SetTowersResponse* response) override {
    return on_set_towers(*request, *response);
  }

  std::mutex write_mutex_;  // one answer at a time; locked before mutex_
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::UpdateRequest> messages_;
  int batches_ = 0;
  UpdateCall* call_ = nullptr;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// A gRPC status with the details that fisherd's errors have.
grpc::Status Error(grpc::StatusCode code, const std::string& reason, const std::string& message,
                   const std::string& factor = "f", int retry_ms = 2500);

// Where factor "f" stands for tower 0, incarnation 7, epoch 3, window 2.
v1::Progress ProgressAt(int64_t next);
v1::UpdateResponse OpenedAt(int64_t next);
v1::UpdateResponse AckAt(int64_t next);
v1::UpdateResponse HoldAt(int64_t step);
v1::UpdateResponse RefusedAt(int64_t step, grpc::StatusCode code, const std::string& reason,
                             const std::string& message);

}  // namespace fisherd

#endif  // FISHERD_TESTS_CLIENT_FAKE_SERVER_H_
