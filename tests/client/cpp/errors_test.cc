#include "client/cpp/errors.h"

#include <gtest/gtest.h>

#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

TEST(ErrorsTest, DetailsOfTheWireAreDecoded) {
  const absl::Status status = FromGrpc(
      Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "STATE_BUDGET", "does not fit", "mlp/0"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "does not fit");
  EXPECT_EQ(ErrorReason(status), "STATE_BUDGET");
  EXPECT_EQ(ErrorMetadata(status), (std::map<std::string, std::string>{{"factor", "mlp/0"}}));
  EXPECT_EQ(RetryDelay(status), absl::Milliseconds(2500));
}

TEST(ErrorsTest, OkIsOk) {
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
  EXPECT_EQ(ErrorReason(absl::OkStatus()), "");
}

TEST(ErrorsTest, AnErrorWithoutDetailsHasNone) {
  const absl::Status status = FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone"));
  EXPECT_EQ(status, absl::UnavailableError("gone"));
  EXPECT_EQ(ErrorReason(status), "");
  EXPECT_TRUE(ErrorMetadata(status).empty());
  EXPECT_EQ(RetryDelay(status), std::nullopt);
}

TEST(ErrorsTest, GarbageInTheDetailsIsNoReasonToLoseTheError) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such factor", "\xFF\xFF garbage"));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no such factor");
  EXPECT_EQ(ErrorReason(status), "");
}

TEST(ErrorsTest, TheLibrarysOwnErrorsLookLikeTheServers) {
  const absl::Status status =
      MakeError(absl::StatusCode::kDataLoss, "CRC_MISMATCH", "damaged", {{"tensor", "0"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ErrorReason(status), "CRC_MISMATCH");
  EXPECT_EQ(ErrorMetadata(status).at("tensor"), "0");
}

}  // namespace
}  // namespace fisherd
