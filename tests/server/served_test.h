// A SessionTest with a service of the test's own behind a port, and a stub for it.

#ifndef FISHERD_TESTS_SERVER_SERVED_TEST_H_
#define FISHERD_TESTS_SERVER_SERVED_TEST_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "fisherd/v1/factor_service.grpc.pb.h"
#include "tests/server/session_harness.h"

namespace fisherd::server {

class ServedTest : public SessionTest {
 protected:
  using SessionTest::SessionTest;

  // The service must live until StopServing.
  void Serve(grpc::Service& service) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    stub_ = v1::FactorService::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                                           grpc::InsecureChannelCredentials()));
  }
  void StopServing() {
    server_->Shutdown();
    server_->Wait();
  }

  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::FactorService::Stub> stub_;
};

}  // namespace fisherd::server

#endif  // FISHERD_TESTS_SERVER_SERVED_TEST_H_
