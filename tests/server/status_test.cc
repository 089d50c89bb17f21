#include "server/status.h"

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "google/rpc/error_details.pb.h"

namespace fisherd::server {
namespace {

TEST(StatusTest, OkIsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpcStatus(absl::OkStatus()).error_details(), "");
}

TEST(StatusTest, CarriesReasonMetadataAndRetryDelay) {
  const absl::Status status =
      core::MakeError(absl::StatusCode::kResourceExhausted, "too many streams",
                      {.reason = "TOO_MANY_STREAMS",
                       .metadata = {{"factor", "mlp/0"}, {"tower", "1"}},
                       .retry_after = absl::Milliseconds(1500)});
  const grpc::Status grpc_status = ToGrpcStatus(status);
  EXPECT_EQ(grpc_status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(grpc_status.error_message(), "too many streams");

  google::rpc::Status parsed;
  ASSERT_TRUE(parsed.ParseFromString(grpc_status.error_details()));
  EXPECT_EQ(parsed.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(parsed.message(), "too many streams");
  ASSERT_EQ(parsed.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(parsed.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "TOO_MANY_STREAMS");
  EXPECT_EQ(info.domain(), "fisherd");
  EXPECT_EQ(info.metadata_size(), 2);
  EXPECT_EQ(info.metadata().at("factor"), "mlp/0");
  EXPECT_EQ(info.metadata().at("tower"), "1");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(parsed.details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(StatusTest, WithoutDetailsThereIsCodeAndMessage) {
  const google::rpc::Status status = ToRpcStatus(absl::CancelledError("gone"));
  EXPECT_EQ(status.code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(status.message(), "gone");
  EXPECT_EQ(status.details_size(), 0);
}

TEST(StatusTest, Utf8PrefixReplacesWhatIsNotUtf8AndCutsBetweenCharacters) {
  EXPECT_EQ(Utf8Prefix("aλ€😀", 100), "aλ€😀");
  EXPECT_EQ(Utf8Prefix("a\xFFz", 100), "a?z");
  EXPECT_EQ(Utf8Prefix("\xC3", 100), "?");
  EXPECT_EQ(Utf8Prefix("\xC0\x80", 100), "??");            // overlong
  EXPECT_EQ(Utf8Prefix("\xE0\x80\x80", 100), "???");       // overlong
  EXPECT_EQ(Utf8Prefix("\xED\xA0\x80", 100), "???");       // a surrogate
  EXPECT_EQ(Utf8Prefix("\xF4\x90\x80\x80", 100), "????");  // beyond U+10FFFF
  EXPECT_EQ(Utf8Prefix("\xF5\x80\x80\x80", 100), "????");
  EXPECT_EQ(Utf8Prefix("aλ", 3), "aλ");
  EXPECT_EQ(Utf8Prefix("aλ", 2), "a");
  EXPECT_EQ(Utf8Prefix("abc", 0), "");
}

TEST(StatusTest, FitsTrailingMetadataWhateverTheCallerSent) {
  const std::string absurd(1 << 20, '\xCE');
  const grpc::Status status = ToGrpcStatus(
      core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kBadName, absurd,
                      {{"factor", absurd}, {"tower", "0"}, {"step", "1"}, {"field", absurd}}));
  EXPECT_EQ(status.error_message(), std::string(1024, '?'));
  EXPECT_LT(status.error_details().size(), 2048);
}

}  // namespace
}  // namespace fisherd::server
