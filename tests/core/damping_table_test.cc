#include "core/damping_table.h"

#include <limits>

#include "tests/core/testing.h"

namespace fisherd::core {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(DampingTableTest, SetGetDelete) {
  DampingTable table;
  EXPECT_EQ(table.Set("global", 0.5), absl::OkStatus());
  EXPECT_EQ(*table.Get("global"), 0.5);
  EXPECT_EQ(table.Set("global", 0), absl::OkStatus());
  EXPECT_EQ(*table.Get("global"), 0);
  EXPECT_EQ(table.Delete("global"), absl::OkStatus());
  for (const absl::Status& status : {table.Get("global").status(), table.Delete("global")}) {
    EXPECT_THAT(status,
                IsError(absl::StatusCode::kNotFound, reason::kDampingNotFound, "\"global\""));
    EXPECT_EQ(FieldOf(status, "damping"), "global");
  }
}

TEST(DampingTableTest, RefusesBadValuesAndKeepsTheOld) {
  DampingTable table;
  ASSERT_EQ(table.Set("a", 1), absl::OkStatus());
  for (const double bad : {-1.0, -0x1p-1074, kInfinity, -kInfinity, std::nan("")}) {
    const absl::Status status = table.Set("a", bad);
    EXPECT_THAT(status,
                IsError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, "damping is"));
    EXPECT_EQ(FieldOf(status), "damping");
    EXPECT_EQ(FieldOf(status, "damping"), "a");
    EXPECT_FALSE(table.Set("b", bad).ok());
  }
  EXPECT_THAT(table.List("", "", 10), ElementsAre(Pair("a", 1)));
}

TEST(DampingTableTest, RefusesBadNames) {
  DampingTable table;
  EXPECT_THAT(table.Set("a//b", 1),
              IsError(absl::StatusCode::kInvalidArgument, reason::kBadName, "a//b"));
  EXPECT_THAT(table.List("", "", 10), IsEmpty());
}

TEST(DampingTableTest, Resolve) {
  DampingTable table;
  ASSERT_EQ(table.Set("a", 0.25), absl::OkStatus());
  EXPECT_EQ(*table.Resolve(Damping(2.0)), 2);
  EXPECT_EQ(*table.Resolve(Damping("a")), 0.25);
  EXPECT_THAT(table.Resolve(Damping("b")).status(),
              IsError(absl::StatusCode::kNotFound, reason::kDampingNotFound, "\"b\""));
}

TEST(DampingTableTest, ListsPagesInByteOrder) {
  DampingTable table;
  for (const char* name : {"b/2", "a", "b/10", "b", "c", "B", "b/3"}) {
    ASSERT_EQ(table.Set(name, 1), absl::OkStatus());
  }
  const auto names = [&](std::string_view prefix, std::string_view after, size_t limit) {
    std::vector<std::string> result;
    for (const auto& [name, value] : table.List(prefix, after, limit)) result.push_back(name);
    return result;
  };
  EXPECT_THAT(names("", "", 100), ElementsAre("B", "a", "b", "b/10", "b/2", "b/3", "c"));
  EXPECT_THAT(names("b/", "", 2), ElementsAre("b/10", "b/2"));
  EXPECT_THAT(names("b/", "b/2", 2), ElementsAre("b/3"));
  EXPECT_THAT(names("b/", "b/3", 2), IsEmpty());
  EXPECT_THAT(names("b", "a", 2), ElementsAre("b", "b/10"));
  EXPECT_THAT(names("b", "b", 2), ElementsAre("b/10", "b/2"));
  EXPECT_THAT(names("b", "c", 2), IsEmpty());
  EXPECT_THAT(names("", "", 0), IsEmpty());
}

}  // namespace
}  // namespace fisherd::core
