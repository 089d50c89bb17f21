#include "core/error.h"

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

TEST(ErrorTest, CarriesReasonAndMetadata) {
  const absl::Status status = MakeError(absl::StatusCode::kNotFound, reason::kFactorNotFound,
                                        "there is no factor", {{"factor", "mlp/0"}});
  EXPECT_THAT(status, IsError(absl::StatusCode::kNotFound, "FACTOR_NOT_FOUND", "no factor"));
  EXPECT_EQ(FieldOf(status, "factor"), "mlp/0");
  EXPECT_FALSE(GetErrorDetails(status)->retry_after.has_value());
}

TEST(ErrorTest, CarriesRetryAfter) {
  const absl::Duration delay = absl::Milliseconds(1500) + absl::Nanoseconds(1);
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted, "full",
                {.reason = "STATE_BUDGET", .metadata = {}, .retry_after = delay});
  EXPECT_EQ(GetErrorDetails(status)->retry_after, delay);
}

TEST(ErrorTest, SurvivesArbitraryBytes) {
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes += static_cast<char>(i);
  const ErrorDetails details{.reason = bytes,
                             .metadata = {{bytes, ""}, {"", bytes}, {"a=b;c", "\"\n"}},
                             .retry_after = absl::ZeroDuration()};
  const auto got = GetErrorDetails(MakeError(absl::StatusCode::kInternal, "odd", details));
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->reason, details.reason);
  EXPECT_EQ(got->metadata, details.metadata);
  EXPECT_EQ(got->retry_after, details.retry_after);
}

TEST(ErrorTest, OtherStatusesHaveNoDetails) {
  EXPECT_FALSE(GetErrorDetails(absl::OkStatus()).has_value());
  EXPECT_FALSE(GetErrorDetails(absl::InternalError("x")).has_value());
}

TEST(ErrorTest, DamagedPayloadIsNoDetails) {
  absl::Status status = MakeError(absl::StatusCode::kInternal, "R", "m", {{"key", "value"}});
  std::string url;
  std::string payload;
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& cord) {
    url = std::string(type_url);
    payload = std::string(cord);
  });
  ASSERT_FALSE(payload.empty());
  for (size_t size = 0; size < payload.size(); ++size) {
    status.SetPayload(url, absl::Cord(payload.substr(0, size)));
    const auto details = GetErrorDetails(status);
    if (details) {
      EXPECT_TRUE(details->metadata.empty()) << size;
    }
  }
}

TEST(ErrorTest, WithMetadataAddsWhatIsNotThere) {
  absl::Status status = MakeError(absl::StatusCode::kInternal, "R", "m", {{"field", "decay"}});
  status = WithMetadata(status, "factor", "f");
  status = WithMetadata(status, "field", "other");
  EXPECT_THAT(status, IsError(absl::StatusCode::kInternal, "R", "m"));
  EXPECT_EQ(FieldOf(status, "factor"), "f");
  EXPECT_EQ(FieldOf(status, "field"), "decay");
}

TEST(ErrorTest, WithMetadataLeavesOtherStatuses) {
  EXPECT_EQ(WithMetadata(absl::OkStatus(), "factor", "f"), absl::OkStatus());
  EXPECT_EQ(WithMetadata(absl::InternalError("x"), "factor", "f"), absl::InternalError("x"));
}

TEST(ErrorTest, BadArgumentNamesTheField) {
  const absl::Status status = BadArgument("decay", "decay is 2");
  EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT", "decay is 2"));
  EXPECT_EQ(FieldOf(status), "decay");
}

}  // namespace
}  // namespace fisherd::core
