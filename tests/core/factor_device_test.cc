// Factors on a device that fails.

#include <thread>

#include "tests/core/factor_harness.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

MATCHER(IsLost, "") {
  return arg.code() == absl::StatusCode::kUnavailable && ReasonOf(arg) == reason::kDeviceLost;
}

class LostDeviceTest : public FactorTest {};

TEST_F(LostDeviceTest, AStepUnderWayNeverEndsAndWhoReadsIsTold) {
  const auto factor = Create("f", Golden());
  const auto stream = OpenTower(*factor, 0);
  backend_.Hold();
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  backend_.AwaitEntered();
  // These wait: one for the step, one for the matrix, which is being overwritten.
  auto later = std::async(std::launch::async, [&] { return ReadAfter(*factor, 1).status(); });
  auto now = std::async(std::launch::async, [&] { return Read(*factor).status(); });
  auto image = std::async(std::launch::async, [&] { return factor->AwaitImage().status(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  backend_.Lose();
  backend_.Release();
  EXPECT_THAT(later.get(), IsLost());
  EXPECT_THAT(now.get(), IsLost());
  EXPECT_THAT(image.get(), IsLost());
  EXPECT_EQ(factor->Describe().next, 1);
  EXPECT_EQ(stream->calls(), 0);
}

TEST_F(LostDeviceTest, RefusesBatchesAndClaims) {
  const auto factor = Create("f", Golden(2));
  const auto stream = OpenTower(*factor, 0);
  backend_.Lose();
  EXPECT_THAT(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()), IsLost());
  EXPECT_THAT(factor->Open({.tower = 1, .client = ClientOf(2)}, stream).status(), IsLost());
  EXPECT_THAT(Read(*factor).status(), IsLost());
  EXPECT_THAT(factor->TryImage().status(), IsLost());
  // It can still be looked at and deleted.
  EXPECT_EQ(factor->Describe().backend, "gated");
  EXPECT_EQ(registry_->Delete("f"), absl::OkStatus());
}

}  // namespace
}  // namespace fisherd::core
