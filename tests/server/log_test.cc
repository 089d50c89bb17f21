#include "server/log.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::server {
namespace {

TEST(LogTest, ALineHasTimeLevelAndMessage) {
  const absl::Time time = absl::FromUnixMillis(1'700'000'000'123);
  EXPECT_EQ(LogLine(time, LogLevel::kWarning, "two\nlines"),
            "2023-11-14T22:13:20.123Z WARNING two lines\n");
}

TEST(LogTest, FieldsAndJson) {
  const absl::Time time = absl::FromUnixMillis(1'700'000'000'123);
  const LogFields fields = {{"identity", "a \"b\""}, {"trace", "0af7"}};
  EXPECT_EQ(LogLine(time, LogLevel::kAudit, "m", LogFormat::kText, fields),
            "2023-11-14T22:13:20.123Z AUDIT m identity=a \"b\" trace=0af7\n");
  EXPECT_EQ(LogLine(time, LogLevel::kDebug, "two\nlines \x01\xff", LogFormat::kJson, fields),
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"DEBUG\",\"message\":"
            "\"two\\u000alines \\u0001?\",\"identity\":\"a \\\"b\\\"\",\"trace\":\"0af7\"}\n");
}

TEST(LogTest, MessagesBelowTheLevelAreDropped) {
  testing::internal::CaptureStderr();
  SetLogLevel(LogLevel::kWarning);
  LogInfo("dropped");
  LogWarning("kept ", 1);
  LogError("kept ", 2);
  SetLogLevel(LogLevel::kInfo);
  LogInfo("kept ", 3);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, testing::MatchesRegex(".*WARNING kept 1\n.*ERROR kept 2\n.*INFO kept 3\n"));
  EXPECT_THAT(log, testing::Not(testing::HasSubstr("dropped")));
}

}  // namespace
}  // namespace fisherd::server
