#include "server/factor_error.h"

#include "core/error.h"
#include "gtest/gtest.h"

namespace fisherd::server {
namespace {

TEST(FactorErrorTest, NamesTheFactorInMessageAndMetadata) {
  const absl::Status status = NameFactor(
      core::MakeError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT", "dtype is 9"), "mlp/0");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "factor \"mlp/0\": dtype is 9");
  EXPECT_EQ(core::GetErrorDetails(status)->reason, "BAD_ARGUMENT");
  EXPECT_EQ(core::GetErrorDetails(status)->metadata.at("factor"), "mlp/0");
}

TEST(FactorErrorTest, KeepsAMessageThatNamesItAndOtherDetails) {
  core::ErrorDetails details{
      .reason = "X", .metadata = {{"field", "f"}}, .retry_after = absl::Seconds(2)};
  const absl::Status status = NameFactor(
      core::MakeError(absl::StatusCode::kNotFound, "there is no factor \"a\"", details), "a");
  EXPECT_EQ(status.message(), "there is no factor \"a\"");
  EXPECT_EQ(core::GetErrorDetails(status)->metadata.at("field"), "f");
  EXPECT_EQ(core::GetErrorDetails(status)->retry_after, absl::Seconds(2));
}

TEST(FactorErrorTest, LeavesOkAndForeignErrorsAlone) {
  EXPECT_TRUE(NameFactor(absl::OkStatus(), "a").ok());
  EXPECT_EQ(NameFactor(absl::CancelledError("gone"), "a"), absl::CancelledError("gone"));
}

}  // namespace
}  // namespace fisherd::server
