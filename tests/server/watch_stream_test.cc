#include "server/watch_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "fisherd/v1/factor_service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "tests/server/served_test.h"

namespace fisherd::server {
namespace {

class WatchOnly final
    : public v1::FactorService::WithCallbackMethod_Watch<v1::FactorService::Service> {
 public:
  explicit WatchOnly(core::FactorRegistry& registry) : registry_(registry) {}
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext*,
                                                     const v1::WatchRequest* request) override {
    return WatchStream::Start(registry_, *request);
  }

 private:
  core::FactorRegistry& registry_;
};

// One who watches over TCP.
class Watch {
 public:
  Watch(v1::FactorService::Stub& stub, const std::string& prefix = "") {
    v1::WatchRequest request;
    request.set_prefix(prefix);
    stream_ = stub.Watch(&context_, request);
  }
  ~Watch() {
    if (!finished_) Cancel();
  }

  // The next one; kind UNSPECIFIED if the stream has ended.
  v1::FactorEvent Next() {
    while (at_ == response_.events_size()) {
      at_ = 0;
      if (!stream_->Read(&response_)) return {};
      most_ = std::max(most_, response_.events_size());
    }
    return response_.events(at_++);
  }
  int most_in_a_message() const { return most_; }
  grpc::Status Cancel() {
    context_.TryCancel();
    return Finish();
  }
  grpc::Status Finish() {
    while (stream_->Read(&response_)) continue;
    finished_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> stream_;
  v1::WatchResponse response_;
  int at_ = 0;
  int most_ = 0;
  bool finished_ = false;
};

class WatchStreamTest : public ServedTest {
 protected:
  WatchStreamTest()
      : ServedTest({.state_budget = 64 << 20, .batch_budget = 1 << 20}), service_(*registry_) {
    Serve(service_);
  }
  ~WatchStreamTest() override {
    registry_->watchers().Shutdown();
    StopServing();
  }

  void Commit(const std::string& name, int64_t step) {
    const auto factor = *registry_->Find(name);
    const auto stream = OpenTower(*factor, 0);
    ASSERT_TRUE(core::FactorTest::Send(*factor, FactorTest::Header(*factor, step, 2), golden_batch_,
                                       stream.get())
                    .ok());
    ASSERT_TRUE(ReadAfter(*factor, step).ok());
  }

  WatchOnly service_;
};

TEST_F(WatchStreamTest, TellsWhatIsThereAndThenWhatHappens) {
  Create("a", Golden());
  Commit("a", 1);
  Watch watch(*stub_);
  v1::FactorEvent event = watch.Next();
  EXPECT_EQ(event.kind(), v1::FACTOR_EVENT_KIND_PRESENT);
  EXPECT_EQ(event.factor(), "a");
  EXPECT_EQ(event.version().incarnation(), 1000u);
  EXPECT_EQ(event.version().epoch(), 77u);
  EXPECT_EQ(event.version().step(), 1);
  EXPECT_EQ(event.next(), 2);
  EXPECT_EQ(event.durable(), 1);
  EXPECT_EQ(event.towers(), 1);
  EXPECT_EQ(event.outcome(), v1::STEP_OUTCOME_UNSPECIFIED);
  Commit("a", 2);
  event = watch.Next();
  EXPECT_EQ(event.kind(), v1::FACTOR_EVENT_KIND_STEP_ENDED);
  EXPECT_EQ(event.step(), 2);
  EXPECT_EQ(event.outcome(), v1::STEP_OUTCOME_WHOLE);
  EXPECT_EQ(event.towers_counted(), 1);
  Create("b", Golden(2));
  event = watch.Next();
  EXPECT_EQ(event.kind(), v1::FACTOR_EVENT_KIND_CREATED);
  EXPECT_EQ(event.factor(), "b");
  EXPECT_EQ(event.towers(), 2);
  ASSERT_TRUE(registry_->Reset("a").ok());
  EXPECT_EQ(watch.Next().kind(), v1::FACTOR_EVENT_KIND_RESET);
  ASSERT_TRUE(registry_->Delete("a").ok());
  EXPECT_EQ(watch.Next().kind(), v1::FACTOR_EVENT_KIND_DELETED);
}

TEST_F(WatchStreamTest, EveryKindOfEventHasItsOwn) {
  using core::FactorEventKind;
  Create("f", Golden());
  Watch watch(*stub_);
  EXPECT_EQ(watch.Next().kind(), v1::FACTOR_EVENT_KIND_PRESENT);
  const std::pair<FactorEventKind, v1::FactorEventKind> kinds[] = {
      {FactorEventKind::kCreated, v1::FACTOR_EVENT_KIND_CREATED},
      {FactorEventKind::kStepEnded, v1::FACTOR_EVENT_KIND_STEP_ENDED},
      {FactorEventKind::kDurable, v1::FACTOR_EVENT_KIND_DURABLE},
      {FactorEventKind::kTowersChanged, v1::FACTOR_EVENT_KIND_TOWERS_CHANGED},
      {FactorEventKind::kReset, v1::FACTOR_EVENT_KIND_RESET},
      {FactorEventKind::kSkipped, v1::FACTOR_EVENT_KIND_SKIPPED},
      {FactorEventKind::kDeleted, v1::FACTOR_EVENT_KIND_DELETED}};
  for (const auto& [kind, expected] : kinds) {
    registry_->watchers().Publish({.kind = kind,
                                   .factor = "g",
                                   .towers = 3,
                                   .step = 7,
                                   .outcome = core::StepOutcome::kPartial,
                                   .towers_counted = 2,
                                   .label = 90,
                                   .tower = 1});
    const v1::FactorEvent event = watch.Next();
    EXPECT_EQ(event.kind(), expected);
    EXPECT_EQ(event.step(), 7);
    if (kind != FactorEventKind::kStepEnded) continue;
    EXPECT_EQ(event.outcome(), v1::STEP_OUTCOME_PARTIAL);
    EXPECT_EQ(event.towers_counted(), 2);
    EXPECT_EQ(event.label(), 90u);
    EXPECT_EQ(event.tower(), 1);
  }
}

TEST_F(WatchStreamTest, PresentsEveryFactorOnceInMessagesOfAtMost256) {
  for (int f = 0; f < 600; ++f) Create(absl::StrFormat("x/%03d", f), Golden());
  Create("y", Golden());
  Watch watch(*stub_, "x/");
  for (int f = 0; f < 600; ++f) {
    const v1::FactorEvent event = watch.Next();
    ASSERT_EQ(event.kind(), v1::FACTOR_EVENT_KIND_PRESENT);
    ASSERT_EQ(event.factor(), absl::StrFormat("x/%03d", f));
  }
  Create("z", Golden());
  Create("x/600", Golden());
  EXPECT_EQ(watch.Next().factor(), "x/600");
  EXPECT_LE(watch.most_in_a_message(), 256);
}

TEST_F(WatchStreamTest, OneWhoDoesNotReadIsToldThatEventsWereLost) {
  Create("f", Golden());
  Watch watch(*stub_);
  ASSERT_EQ(watch.Next().kind(), v1::FACTOR_EVENT_KIND_PRESENT);
  // More than the network, the message under way and the queue hold.
  const std::string name = std::string(200, 'n');
  core::FactorEvent event{.kind = core::FactorEventKind::kCreated, .factor = name};
  constexpr int64_t kEvents = 100000;
  for (event.next = 1; event.next <= kEvents; ++event.next) {
    registry_->watchers().Publish(event);
    event.kind = core::FactorEventKind::kStepEnded;
  }
  int64_t told = 0;
  int skipped = 0;
  for (int64_t next = 0; next < kEvents; ++told) {
    const v1::FactorEvent heard = watch.Next();
    ASSERT_GT(heard.next(), next);
    if (heard.next() != next + 1) {
      ASSERT_EQ(heard.kind(), v1::FACTOR_EVENT_KIND_SKIPPED);
    }
    skipped += heard.kind() == v1::FACTOR_EVENT_KIND_SKIPPED;
    next = heard.next();
  }
  EXPECT_GE(skipped, 1);
  EXPECT_LT(told, kEvents);
}

TEST_F(WatchStreamTest, EndsWhenItIsCancelled) {
  Create("f", Golden());
  Watch watch(*stub_);
  watch.Next();
  EXPECT_EQ(watch.Cancel().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(WatchStreamTest, EndsWithTheServerAlsoForWhoComesLate) {
  Create("f", Golden());
  Watch watch(*stub_);
  watch.Next();
  registry_->watchers().Shutdown();
  Watch late(*stub_);
  for (Watch* each : {&watch, &late}) {
    const grpc::Status status = each->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(status.error_details()));
    EXPECT_EQ(InfoOf(details).reason(), "SHUTTING_DOWN");
  }
}

// The write that nobody reads shall not hold up the end.
TEST_F(WatchStreamTest, AShutdownDoesNotWaitForOneWhoDoesNotRead) {
  Create("f", Golden());
  Watch watch(*stub_);
  watch.Next();
  for (int i = 0; i < 5000; ++i) {
    registry_->watchers().Publish(
        {.kind = core::FactorEventKind::kCreated, .factor = absl::StrFormat("%0256d", i)});
  }
  registry_->watchers().Shutdown();
  server_->Shutdown();  // without a deadline: waits for every call
  EXPECT_EQ(watch.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace fisherd::server
