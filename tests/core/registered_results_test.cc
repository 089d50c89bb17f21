#include "core/registered_results.h"

#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

OperatorSpec Matpower(double exponent, std::string damping) {
  return {.kind = OperatorKind::kMatpower, .exponent = exponent, .damping = std::move(damping)};
}

TEST(RegisteredResultsTest, TheSameOperatorAndDampingIsOneRegistration) {
  RegisteredResults results;
  const auto first = results.Add(Matpower(-1, "a"), {}, {});
  EXPECT_EQ(results.Add(Matpower(-1, "a"), {RefreshKind::kEveryNSteps, 5}, {}), first);
  EXPECT_EQ(first->policy.steps, 5);
  EXPECT_NE(results.Add(Matpower(-1, "b"), {}, {}), first);
  EXPECT_NE(results.Add(Matpower(-2, "a"), {}, {}), first);
  EXPECT_NE(results.Add({.kind = OperatorKind::kCholesky, .damping = "a"}, {}, {}), first);
  EXPECT_EQ(results.all().size(), 4);
  EXPECT_TRUE(results.Remove(Matpower(-1, "a")));
  EXPECT_FALSE(results.Remove(Matpower(-1, "a")));
  EXPECT_EQ(results.Find(Matpower(-1, "a")), nullptr);
  EXPECT_NE(results.Find(Matpower(-1, "b")), nullptr);
}

TEST(RegisteredResultsTest, OnlyPowersOtherThanOneAreCached) {
  EXPECT_FALSE(IsCached({}));
  EXPECT_FALSE(IsCached(Matpower(1, "a")));
  EXPECT_TRUE(IsCached(Matpower(-1, "a")));
  EXPECT_TRUE(IsCached(Matpower(0, "a")));
  EXPECT_TRUE(IsCached({.kind = OperatorKind::kCholeskyInverse, .damping = "a"}));
}

TEST(RegisteredResultsTest, FreshnessFollowsThePolicy) {
  const Version now{1, 1, 7};
  Registration registration{.op = Matpower(-1, "a")};
  EXPECT_FALSE(IsFresh(registration, now, 0.5)) << "empty";
  auto cached = std::make_shared<CachedResult>();
  cached->version = now;
  cached->damping = 0.5;
  registration.cached = cached;
  for (const RefreshKind kind :
       {RefreshKind::kOnRead, RefreshKind::kEveryNSteps, RefreshKind::kOnRequest}) {
    registration.policy = {kind, 2};
    const bool may_be_stale = kind != RefreshKind::kOnRead;
    EXPECT_TRUE(IsFresh(registration, now, 0.5));
    EXPECT_EQ(IsFresh(registration, {1, 1, 8}, 0.5), may_be_stale);
    EXPECT_EQ(IsFresh(registration, now, 0.25), may_be_stale);
  }
}

TEST(RegisteredResultsTest, DueAfterEveryNthStep) {
  Registration registration{.op = Matpower(-1, "a"), .policy = {RefreshKind::kEveryNSteps, 3}};
  EXPECT_FALSE(IsDue(registration, 2));
  EXPECT_TRUE(IsDue(registration, 3));
  EXPECT_FALSE(IsDue(registration, 4));
  EXPECT_TRUE(IsDue(registration, 6));
  registration.policy.kind = RefreshKind::kOnRequest;
  EXPECT_FALSE(IsDue(registration, 3));
  registration = {.op = Matpower(1, "a"), .policy = {RefreshKind::kEveryNSteps, 3}};
  EXPECT_FALSE(IsDue(registration, 3)) << "matpower 1 has no cache";
}

}  // namespace
}  // namespace fisherd::core
