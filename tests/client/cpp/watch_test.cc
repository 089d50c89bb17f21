// Tests of watch.cc, through Client::Watch.

#include "client/cpp/watch.h"

#include <gtest/gtest.h>

#include <vector>

#include "fisherd/client.h"
#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

v1::WatchResponse Steps(int64_t first, int64_t last) {
  v1::WatchResponse response;
  for (int64_t step = first; step <= last; ++step) {
    v1::FactorEvent& event = *response.add_events();
    event.set_kind(v1::FACTOR_EVENT_KIND_STEP_ENDED);
    event.set_step(step);
  }
  return response;
}

TEST(WatchTest, CallsBackUntilTheCallbackHasEnough) {
  FakeServer server;
  Client client = server.Connect();
  server.on_watch = [](const v1::WatchRequest& request,
                       grpc::ServerWriter<v1::WatchResponse>& writer) {
    EXPECT_EQ(request.prefix(), "mlp/");
    for (int64_t step = 1; writer.Write(Steps(step, step + 1)); step += 2) {
    }
    return grpc::Status::CANCELLED;
  };
  std::vector<int64_t> steps;
  EXPECT_TRUE(client
                  .Watch("mlp/",
                         [&](const v1::FactorEvent& event) {
                           steps.push_back(event.step());
                           return event.step() < 5;
                         })
                  .ok());
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5}));
}

TEST(WatchTest, ALostConnectionIsMadeAgain) {
  FakeServer server;
  Client client = server.Connect();
  Shared<int> calls(0);
  server.on_watch = [&](const v1::WatchRequest&, grpc::ServerWriter<v1::WatchResponse>& writer) {
    calls.Set(calls.Get() + 1);
    writer.Write(Steps(calls.Get(), calls.Get()));
    return Error(grpc::StatusCode::UNAVAILABLE, "", "cut", "", /*retry_ms=*/1);
  };
  std::vector<int64_t> steps;
  EXPECT_TRUE(client
                  .Watch("",
                         [&](const v1::FactorEvent& event) {
                           steps.push_back(event.step());
                           return steps.size() < 3;
                         })
                  .ok());
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3}));
}

TEST(WatchTest, WhatCannotPassIsTheAnswer) {
  FakeServer server;
  Client client = server.Connect();
  server.on_watch = [](const v1::WatchRequest&, grpc::ServerWriter<v1::WatchResponse>&) {
    return Error(grpc::StatusCode::INVALID_ARGUMENT, "BAD_NAME", "no");
  };
  EXPECT_EQ(ErrorReason(client.Watch("\n", [](const v1::FactorEvent&) { return true; })),
            "BAD_NAME");
}

}  // namespace
}  // namespace fisherd
