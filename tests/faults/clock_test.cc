// A server whose date is set while it runs: no step fails for it, no snapshot waits for it, and
// what comes after a restart is still the later.

#include "absl/time/clock.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/faults/fault_test.h"
#include "tests/faults/server_process.h"
#include "tests/test_path.h"

namespace fisherd::faults {
namespace {

class ClockTest : public testing::Test {
 protected:
  ClockTest() { std::filesystem::create_directories(directory_); }
  ~ClockTest() override {
    server_.Kill();
    if (HasFailure()) ADD_FAILURE() << server_.log();
    std::filesystem::remove_all(directory_);
  }
  // By how much the server's date is off, as faketime(1) takes it.
  void SetDate(const std::string& offset) {
    std::ofstream(date_ + ".new") << offset << "\n";
    std::filesystem::rename(date_ + ".new", date_);
  }
  void Start() {
    ASSERT_TRUE(server_.Start(
        {"--snapshot-interval=20ms"},
        {absl::StrCat("LD_PRELOAD=", FISHERD_FAKETIME), "FAKETIME_TIMESTAMP_FILE=" + date_,
         "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"}));
  }
  uint64_t Create(const std::string& name) {
    const auto made =
        ConnectTo(server_.port())
            .CreateFactor(
                name,
                {.input_size = training_.layer.inputs,
                 .output_size = training_.layer.outputs,
                 .has_bias = true},
                {.towers = 2, .zero_debias = false, .durability = v1::DURABILITY_LEVEL_SNAPSHOT});
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? made->version().incarnation() : 0;
  }

  const std::string directory_ = TestPath();
  const std::string date_ = directory_ + "/date";
  const Training training_ = {.layer = {}, .factors = {"f"}, .towers = 2, .steps = 3};
  ServerProcess server_{directory_};
};

TEST_F(ClockTest, TheDateIsSet) {
  if (*FISHERD_FAKETIME == '\0') GTEST_SKIP() << "libfaketime is not installed";
  SetDate("+0");
  Start();
  const uint64_t incarnation = Create("f");
  Client client = ConnectTo(server_.port());
  UpdateStream stream = client.OpenUpdates(Impatient());
  auto first = stream.Open("f", 0);
  auto second = stream.Open("f", 1);
  ASSERT_TRUE(first.ok() && second.ok());
  // Each step waits for its second tower while the date changes.
  for (const std::string offset : {"+2d", "-3d", "+1d"}) {
    const int64_t step = first->next_step();
    ASSERT_TRUE(first->Write(MakeBatch(training_.layer, "f", step, 0).view(), kAccumulate).ok());
    SetDate(offset);
    absl::SleepFor(absl::Milliseconds(100));
    ASSERT_TRUE(second->Write(MakeBatch(training_.layer, "f", step, 1).view(), kAccumulate).ok());
    const absl::Status durable = first->WaitDurable(step, absl::Seconds(20));
    EXPECT_TRUE(durable.ok()) << durable << " after " << offset;
  }
  EXPECT_EQ(client.Describe("f")->steps_failed(), 0);

  SetDate("-400d");
  server_.Kill();
  Start();
  EXPECT_EQ(ConnectTo(server_.port()).Describe("f")->durable(), training_.steps);
  EXPECT_GT(Create("g"), incarnation);
  std::set<std::string> dates;
  std::ifstream log(directory_ + "/log");
  for (std::string line; std::getline(log, line);) dates.insert(line.substr(0, 10));
  EXPECT_GE(dates.size(), 2) << "the date was not set";
}

}  // namespace
}  // namespace fisherd::faults
