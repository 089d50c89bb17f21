#include "core/factor_registry.h"

#include <gmock/gmock.h>

#include <thread>

#include "tests/core/factor_harness.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FactorRegistryTest : public FactorTest {
 protected:
  std::vector<std::string> Names(std::string_view prefix, std::string_view after, size_t limit) {
    std::vector<std::string> names;
    for (const auto& factor : registry_->List(prefix, after, limit))
      names.push_back(factor->name());
    return names;
  }
};

TEST_F(FactorRegistryTest, CreatingTheSameAgainIsTheSameFactor) {
  const auto first = registry_->Create("f", Golden());
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(first->created);
  const int64_t used = registry_->state_budget().used();
  const auto again = registry_->Create("f", Golden());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->factor, first->factor);
  EXPECT_EQ(registry_->state_budget().used(), used);
}

TEST_F(FactorRegistryTest, AnotherSpecificationIsRefused) {
  Create("f", Golden());
  for (FactorSpec spec : {Golden(2), Spec(3, 2), Spec(2, 2, false)}) {
    const auto other = registry_->Create("f", spec);
    EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(ReasonOf(other.status()), reason::kSpecDiffers);
  }
  FactorSpec filled = Golden();  // with what the registry says where the specification does not
  filled.window = 4;
  filled.gather_timeout = absl::InfiniteDuration();
  filled.durability = DurabilityLevel::kMemory;
  EXPECT_EQ((*registry_->Find("f"))->spec(), filled);
}

TEST_F(FactorRegistryTest, RefusesBadNamesAndUnknownOnes) {
  for (const char* name : {"", "/", "a//b", "a/../b", ".", "a\n"}) {
    EXPECT_EQ(ReasonOf(registry_->Create(name, Golden()).status()), reason::kBadName) << name;
    EXPECT_EQ(ReasonOf(registry_->Find(name).status()), reason::kBadName) << name;
  }
  EXPECT_EQ(ReasonOf(registry_->Find("f").status()), reason::kFactorNotFound);
  EXPECT_EQ(ReasonOf(registry_->Delete("f")), reason::kFactorNotFound);
  EXPECT_EQ(ReasonOf(registry_->Reset("f").status()), reason::kFactorNotFound);
  EXPECT_THAT(Names("", "", 10), IsEmpty());
}

TEST_F(FactorRegistryTest, AStateBeyondTheBudgetIsRefusedWithTheEstimate) {
  const auto factor = registry_->Create("big", Spec(400, 400, false));  // 640,000 bytes, twice
  EXPECT_EQ(factor.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(factor.status()), reason::kStateBudget);
  EXPECT_THAT(std::string(factor.status().message()), HasSubstr("1280000 in all"));
  EXPECT_EQ(GetErrorDetails(factor.status())->metadata.at("factor"), "big");
  EXPECT_EQ(registry_->state_budget().used(), 0);
}

TEST_F(FactorRegistryTest, ListsByPrefixAPageAtATime) {
  for (const char* name : {"b/2", "a", "b/1", "b/3", "c", "b"}) Create(name, Golden());
  EXPECT_THAT(Names("", "", 10), ElementsAre("a", "b", "b/1", "b/2", "b/3", "c"));
  EXPECT_THAT(Names("b/", "", 2), ElementsAre("b/1", "b/2"));
  EXPECT_THAT(Names("b/", "b/2", 2), ElementsAre("b/3"));
  EXPECT_THAT(Names("b/", "z", 2), IsEmpty());
}

TEST_F(FactorRegistryTest, DeletionGivesItsMemoryBack) {
  Create("f", Golden());
  EXPECT_GT(registry_->state_budget().used(), 0);
  ASSERT_TRUE(registry_->Delete("f").ok());
  EXPECT_EQ(registry_->state_budget().used(), 0);
  EXPECT_EQ(ReasonOf(registry_->Find("f").status()), reason::kFactorNotFound);
}

TEST_F(FactorRegistryTest, IncarnationsAreNeverReused) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 3; ++i) {
    seen.insert(Create("f", Golden())->Describe().version.incarnation);
    seen.insert((*registry_->Reset("f"))->Describe().version.incarnation);
    ASSERT_TRUE(registry_->Delete("f").ok());
  }
  EXPECT_EQ(seen.size(), 6);
}

TEST_F(FactorRegistryTest, OfThoseWhoCreateANameOneComesFirst) {
  std::atomic<int> created = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { created += registry_->Create("f", Golden())->created; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
  EXPECT_EQ(registry_->state_budget().used(), 48);
}

}  // namespace
}  // namespace fisherd::core
