// A race in a gRPC callback, seeded: what ThreadSanitizer must report although gRPC itself is not
// instrumented and tsan_grpc.cc speaks for it. If this goes unseen, so would ours.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <future>
#include <memory>
#include <string>

namespace {

int reads = 0;  // written by the reactor and by main(), guarded by nothing

class Reactor final : public grpc::ServerGenericBidiReactor {
 public:
  Reactor() { StartRead(&message_); }
  void OnReadDone(bool) override {
    ++reads;
    Finish(grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer message_;
};

class Service final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Reactor;
  }
};

}  // namespace

int main() {
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();

  grpc::GenericStub stub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  grpc::Slice nothing;
  grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  std::promise<void> done;
  stub.UnaryCall(&context, "/seeded/Race", {}, &request, &response,
                 [&done](const grpc::Status&) { done.set_value(); });
  ++reads;
  done.get_future().wait();
}
