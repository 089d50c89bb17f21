#include "core/placement.h"

#include "core/backend_cpu.h"
#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

class FakeDevice : public Backend {
 public:
  explicit FakeDevice(bool* lost = nullptr) : lost_(lost) {}
  std::string name() const override { return "fake"; }
  double Advance(const AdvanceStep&, const Matrix&, Matrix&) override { return 0; }
  absl::Status Check() const override {
    return lost_ != nullptr && *lost_ ? absl::UnavailableError("lost") : absl::OkStatus();
  }

 private:
  const bool* const lost_;
};

class PlacementTest : public ::testing::Test {
 protected:
  Backend* Where(Placement& placement, BackendChoice wanted, int64_t bytes) {
    const auto home = placement.Choose(wanted, bytes);
    return home.ok() ? (*home)->backend : nullptr;
  }

  bool lost_ = false;
  BackendCpu host_{nullptr};
  FakeDevice small_;
  FakeDevice large_{&lost_};
  const std::vector<BackendMemory> devices_ = {{&small_, 100}, {&large_, 1000}};
};

TEST_F(PlacementTest, TheRoomiestDeviceComesFirstThenTheHost) {
  Placement placement({&host_, 10}, devices_);
  EXPECT_EQ(Where(placement, BackendChoice::kAny, 50), &large_);
  const auto taken = placement.devices()[1]->budget.TryTake(950);
  EXPECT_EQ(Where(placement, BackendChoice::kAny, 50), &small_);
  EXPECT_EQ(Where(placement, BackendChoice::kAny, 101), &host_);
  EXPECT_EQ(Where(placement, BackendChoice::kCpu, 50), &host_);
}

TEST_F(PlacementTest, WhoeverAsksForADeviceGetsOneOrNone) {
  Placement placement({&host_, 10}, devices_);
  EXPECT_EQ(Where(placement, BackendChoice::kCuda, 5000), &large_);  // whose budget refuses it
  Placement none({&host_, 10}, {});
  const auto refused = none.Choose(BackendChoice::kCuda, 1);
  EXPECT_THAT(refused.status(), IsError(absl::StatusCode::kFailedPrecondition, reason::kNoDevice,
                                        "this server has no GPU"));
  EXPECT_EQ(FieldOf(refused.status()), "backend");
  EXPECT_EQ(none.ChooseAgain(BackendChoice::kCuda, 1).backend, &host_);
  EXPECT_EQ(placement.ChooseAgain(BackendChoice::kCuda, 1).backend, &large_);
}

TEST_F(PlacementTest, WhatIsUsualGoesForThoseWhoDoNotSay) {
  Placement cpu({&host_, 10}, devices_, BackendChoice::kCpu);
  EXPECT_EQ(Where(cpu, BackendChoice::kAny, 1), &host_);
  EXPECT_EQ(Where(cpu, BackendChoice::kCuda, 1), &large_);
  Placement cuda({&host_, 10}, devices_, BackendChoice::kCuda);
  EXPECT_EQ(Where(cuda, BackendChoice::kAny, 5000), &large_);
  EXPECT_EQ(Where(cuda, BackendChoice::kCpu, 1), &host_);
}

TEST_F(PlacementTest, LostDevicesDoNotCount) {
  Placement placement({&host_, 10}, devices_);
  lost_ = true;
  EXPECT_EQ(Where(placement, BackendChoice::kCuda, 50), &small_);
  EXPECT_EQ(Where(placement, BackendChoice::kAny, 500), &host_);
  Placement only({&host_, 10}, std::span(devices_).subspan(1));
  EXPECT_THAT(only.Choose(BackendChoice::kCuda, 50).status(),
              IsError(absl::StatusCode::kFailedPrecondition, reason::kNoDevice, "have failed"));
}

}  // namespace
}  // namespace fisherd::core
