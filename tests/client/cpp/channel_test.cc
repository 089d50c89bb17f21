#include "client/cpp/channel.h"

#include <gtest/gtest.h>

#include "client/cpp/errors.h"
#include "fisherd/client.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

TEST(ChannelTest, SmallHarmlessCallsAreTriedAgain) {
  FakeServer server;
  Client client = server.Connect();
  Shared<int> calls(0);
  const auto twice_away = [&] {
    calls.Set(calls.Get() + 1);
    return calls.Get() % 3 == 0 ? grpc::Status::OK
                                : grpc::Status(grpc::StatusCode::UNAVAILABLE, "away");
  };
  server.on_describe = [&](const v1::DescribeFactorRequest&, v1::DescribeFactorResponse&) {
    return twice_away();
  };
  EXPECT_TRUE(client.Describe("f").ok());
  server.on_set_damping = [&](const v1::SetDampingRequest&) { return twice_away(); };
  EXPECT_TRUE(client.SetDamping("global", 1).ok());
  EXPECT_EQ(calls.Get(), 6);
}

TEST(ChannelTest, OthersAreNot) {
  FakeServer server;
  Client client = server.Connect();
  Shared<int> calls(0);
  server.on_delete = [&](const v1::DeleteFactorRequest&) {
    calls.Set(calls.Get() + 1);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "away");
  };
  EXPECT_EQ(client.Delete("f").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls.Get(), 1);
}

TEST(ChannelTest, WhatMayPass) {
  EXPECT_TRUE(MayPass(absl::OkStatus()));
  EXPECT_TRUE(MayPass(absl::UnavailableError("")));
  EXPECT_TRUE(MayPass(absl::InternalError("")));
  EXPECT_FALSE(MayPass(absl::AbortedError("")));
  EXPECT_FALSE(MayPass(absl::NotFoundError("")));
  EXPECT_FALSE(MayPass(absl::ResourceExhaustedError("")));
  EXPECT_TRUE(MayPass(FromGrpc(Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "", ""))));
}

TEST(BackoffTest, DoublesUpToItsBoundGiveOrTakeAQuarter) {
  Backoff backoff(absl::Milliseconds(100), absl::Milliseconds(350));
  for (int round = 0; round < 2; ++round) {
    for (const int ms : {100, 200, 350, 350}) {
      const absl::Duration delay = backoff.Next(absl::UnavailableError(""));
      EXPECT_GE(delay, absl::Milliseconds(ms) * 0.75);
      EXPECT_LE(delay, absl::Milliseconds(ms) * 1.25);
    }
    backoff.Reset();
  }
  for (int i = 0; i < 100; ++i) EXPECT_GT(backoff.Next(absl::OkStatus()), absl::ZeroDuration());
}

TEST(BackoffTest, TheServersOwnDelayCounts) {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(10));
  EXPECT_EQ(backoff.Next(FromGrpc(Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "", "", "", 1234))),
            absl::Milliseconds(1234));
}

}  // namespace
}  // namespace fisherd
