#include "server/waiting_reads.h"

#include <future>
#include <optional>

#include "tests/core/factor_harness.h"
#include "tests/core/testing.h"

namespace fisherd::server {
namespace {

using core::IsError;

class WaitingReadsTest : public core::FactorTest {
 protected:
  // A read of step 1, which has not been sent.
  core::ReadRequest Waiting() const {
    return {.op = {},
            .dtype = core::DataType::kUnspecified,
            .if_version_not = std::nullopt,
            .min_version = core::MinVersion{factor_->Describe().version.incarnation, 1}};
  }
  core::ReadCallback Answer() {
    return [this](absl::StatusOr<core::ReadResult> result) { answer_.set_value(result.status()); };
  }
  absl::Status Await() { return answer_.get_future().get(); }

  const std::shared_ptr<core::Factor> factor_ = Create("f", Golden());
  WaitingReads reads_;
  std::promise<absl::Status> answer_;
};

TEST_F(WaitingReadsTest, ARead) {
  WaitingRead read(&reads_);
  read.Start(factor_, {}, Answer());
  EXPECT_TRUE(Await().ok());
  // Too late for any effect.
  read.End(absl::CancelledError("late"));
  reads_.Shutdown();
}

TEST_F(WaitingReadsTest, OneReadAfterTheOther) {
  WaitingRead read(&reads_);
  read.Start(factor_, {}, Answer());
  EXPECT_TRUE(Await().ok());
  answer_ = {};
  read.Start(factor_, Waiting(), Answer());
  read.End(absl::CancelledError("enough"));
  EXPECT_EQ(Await().code(), absl::StatusCode::kCancelled);
  answer_ = {};
  read.Start(factor_, {}, Answer());
  EXPECT_EQ(Await().code(), absl::StatusCode::kCancelled);
}

TEST_F(WaitingReadsTest, AReadThatWaitsEndsAsItIsTold) {
  WaitingRead read(&reads_);
  read.Start(factor_, Waiting(), Answer());
  read.End(absl::CancelledError("the caller has gone"));
  EXPECT_EQ(Await(), absl::CancelledError("the caller has gone"));
}

TEST_F(WaitingReadsTest, TheFirstEndCounts) {
  WaitingRead read(&reads_);
  read.End(absl::CancelledError("first"));
  read.End(absl::CancelledError("second"));
  read.Start(factor_, Waiting(), Answer());
  EXPECT_EQ(Await(), absl::CancelledError("first"));
}

TEST_F(WaitingReadsTest, ShutdownEndsWhatWaitsAndWhatIsToCome) {
  WaitingRead early(&reads_);
  early.Start(factor_, Waiting(), Answer());
  reads_.Shutdown();
  EXPECT_THAT(Await(), IsError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                               "the server shuts down"));

  answer_ = {};
  WaitingRead late(&reads_);
  late.Start(factor_, {}, Answer());
  EXPECT_THAT(Await(), IsError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                               "the server shuts down"));
}

TEST_F(WaitingReadsTest, TheAnswerMayDestroyTheRead) {
  for (int i = 0; i < 100; ++i) {
    auto read = std::make_unique<WaitingRead>(&reads_);
    WaitingRead& started = *read;
    std::promise<void> done;
    started.Start(factor_, {}, [&](const absl::StatusOr<core::ReadResult>&) {
      read.reset();
      done.set_value();
    });
    done.get_future().wait();
  }
}

}  // namespace
}  // namespace fisherd::server
