#include "server/session_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/session_harness.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

class SessionTableTest : public SessionTest {
 protected:
  void ExpectEnd(const absl::Status& status, absl::StatusCode code, std::string_view reason,
                 const std::string& message) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(core::ReasonOf(status), reason);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
};

TEST_F(SessionTableTest, ANewerStreamClosesTheOlderOne) {
  auto factor = Create("mlp/0", Golden(2));
  auto older = Join(1, 7);
  older->Open("mlp/0", 0);
  ASSERT_TRUE(older->Send(GoldenBatch("mlp/0", 1, 0)).ok());
  ASSERT_TRUE(older->Send(Header("mlp/0", 2)).ok());
  const int wakes = older->wakes();
  auto newer = Join(1, 9);
  // Before it is answered: the claim and the unfinished batch are gone, the whole one stays.
  EXPECT_GT(older->wakes(), wakes);
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
  EXPECT_EQ(factor->Describe().towers[0].received_through, 1);
  ExpectEnd(*older->session().closed(), absl::StatusCode::kAborted, core::reason::kStreamSuperseded,
            "stream 7 of this client_id gives way to its stream 9");
  ExpectEnd(older->Send(OpenMessage("mlp/0")), absl::StatusCode::kAborted,
            core::reason::kStreamSuperseded, "gives way");
  EXPECT_TRUE(older->IsQuiet());

  newer->Open("mlp/0", 0);
  ASSERT_TRUE(newer->Send(GoldenBatch("mlp/0", 2, 0)).ok());
  EXPECT_EQ(factor->Describe().towers[0].received_through, 2);
  EXPECT_FALSE(newer->session().closed().has_value());
}

TEST_F(SessionTableTest, AStreamThatIsNotNewerIsRefused) {
  auto live = Join(1, 7);
  for (const uint64_t stream : {7, 6, 0}) {
    Trainer late(*registry_, table_);
    ExpectEnd(late.Send(HelloMessage(1, stream)), absl::StatusCode::kAborted,
              core::reason::kStreamSuperseded, "gives way to its stream 7");
  }
  EXPECT_FALSE(live->session().closed().has_value());
  // Its number counts only while it lives.
  live->session().Close(absl::OkStatus());
  Join(1, 3);
}

TEST_F(SessionTableTest, WhoDoesNotSayWhoHeIsGivesWay) {
  std::vector<std::unique_ptr<Trainer>> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(std::make_unique<Trainer>(*registry_, table_));
  const auto named = Join(1);  // is in, and no longer one of them
  EXPECT_FALSE(silent[0]->session().closed().has_value() &&
               silent[1]->session().closed().has_value());
  Trainer more(*registry_, table_);
  Trainer most(*registry_, table_);
  ASSERT_TRUE(silent[0]->session().closed().has_value());
  ExpectEnd(*silent[0]->session().closed(), absl::StatusCode::kResourceExhausted,
            core::reason::kTooManyStreams, "the server has 8 streams");
  EXPECT_FALSE(silent[7]->session().closed().has_value());
  EXPECT_FALSE(named->session().closed().has_value());
  EXPECT_TRUE(silent[7]->Send(HelloMessage(2)).ok());
}

TEST_F(SessionTableTest, ThereIsAMaximumOfStreams) {
  std::vector<std::unique_ptr<Trainer>> trainers;
  for (int client = 1; client <= 8; ++client) trainers.push_back(Join(client));
  Trainer ninth(*registry_, table_);
  const absl::Status status = ninth.Send(HelloMessage(9));
  ExpectEnd(status, absl::StatusCode::kResourceExhausted, core::reason::kTooManyStreams,
            "the server has 8 streams");
  EXPECT_EQ(core::GetErrorDetails(status)->retry_after, absl::Seconds(1));
  // One that comes in another's place is none too many.
  trainers.push_back(Join(5, 2));
  trainers[0]->session().Close(absl::OkStatus());
  trainers.push_back(Join(10));
}

TEST_F(SessionTableTest, ShutdownEndsAllStreamsAndThoseToCome) {
  auto factor = Create("mlp/0", Golden());
  auto entered = Join(1);
  entered->Open("mlp/0");
  Trainer silent(*registry_, table_);
  auto late = std::make_shared<Session>(*registry_, table_, [] {});
  table_.Shutdown();
  for (Trainer* trainer : {entered.get(), &silent}) {
    ExpectEnd(*trainer->session().closed(), absl::StatusCode::kUnavailable,
              core::reason::kShuttingDown, "shutting down");
  }
  EXPECT_FALSE(factor->Describe().towers[0].claimed);
  ExpectEnd(table_.Add(late), absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
            "shutting down");
}

}  // namespace
}  // namespace fisherd::server
