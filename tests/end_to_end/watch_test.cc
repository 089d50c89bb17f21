// Watch: what a client of the whole server hears of its factors.

#include <thread>

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using grpc::StatusCode;

class WatchTest : public ServerTest {
 protected:
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader;
    v1::WatchResponse response;
    int at = 0;

    v1::FactorEvent Next() {
      if (at == response.events_size()) {
        at = 0;
        if (!reader->Read(&response)) return {};
      }
      return response.events(at++);
    }
  };
  std::unique_ptr<Stream> Watch(const std::string& prefix = "") {
    auto stream = std::make_unique<Stream>();
    v1::WatchRequest request;
    request.set_prefix(prefix);
    stream->reader = stub().Watch(&stream->context, request);
    return stream;
  }
};

TEST_P(WatchTest, EveryStepIsToldOnceAndInOrder) {
  const v1::FactorInfo factor = CreateGolden("f");
  const auto watch = Watch();
  EXPECT_EQ(watch->Next().kind(), v1::FACTOR_EVENT_KIND_PRESENT);
  Trainer trainer(stub(), 1);
  trainer.Claim("f");
  for (int64_t step = 2; step <= 20; ++step) {
    Batch batch = GoldenBatch(factor, step);
    batch.header.set_label(100 * step);
    trainer.Send(batch);
    trainer.AwaitNext("f", step + 1);
  }
  for (int64_t step = 2; step <= 20;) {
    const v1::FactorEvent event = watch->Next();
    if (event.kind() == v1::FACTOR_EVENT_KIND_DURABLE) continue;
    ASSERT_EQ(event.kind(), v1::FACTOR_EVENT_KIND_STEP_ENDED);
    EXPECT_EQ(event.step(), step);
    EXPECT_EQ(event.version().step(), step);
    EXPECT_EQ(event.version().incarnation(), factor.version().incarnation());
    EXPECT_EQ(event.outcome(), v1::STEP_OUTCOME_WHOLE);
    EXPECT_EQ(event.label(), 100 * step);
    EXPECT_EQ(event.next(), ++step);
  }
  watch->context.TryCancel();
  while (watch->reader->Read(&watch->response)) continue;
  EXPECT_EQ(watch->reader->Finish().error_code(), StatusCode::CANCELLED);
}

// With an hour of grace, whoever had to be waited for would hang this test.
TEST_P(WatchTest, ShutdownEndsIt) {
  CreateGolden("f");
  const auto watch = Watch();
  watch->Next();
  std::thread reader([&] { EXPECT_EQ(watch->Next().factor(), ""); });
  server_->Shutdown(absl::Hours(1));
  reader.join();
  EXPECT_EQ(watch->reader->Finish().error_code(), StatusCode::UNAVAILABLE);
}

FISHERD_ON_EVERY_TRANSPORT(WatchTest);

}  // namespace
}  // namespace fisherd::server
