#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "tests/core/factor_harness.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public core::FactorTest {
 protected:
  std::string Text() { return metrics_.Text(); }

  Readiness readiness_;
  Metrics metrics_{{.registry = &*registry_,
                    .pool = &*pool_,
                    .readiness = &readiness_,
                    .backend = "a \"backend\"",
                    .factor_prefixes = {"watched/", "watched/a"}}};
};

TEST_F(MetricsTest, SaysWhatThereIs) {
  Create("a", Golden());
  Create("b", Golden());
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_factors 2\n"));
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_state_budget_bytes 1048576\n"));
  EXPECT_THAT(Text(), HasSubstr("backend=\"a \\\"backend\\\"\""));
  EXPECT_THAT(Text(), Not(HasSubstr("fisherd_snapshot")));  // nothing is stored
}

TEST_F(MetricsTest, FollowsReadiness) {
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 0\n"));
  readiness_.Set("");
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 1\n"));
  readiness_.Set("shutting down");
  EXPECT_THAT(Text(), HasSubstr("\nfisherd_ready 0\n"));
}

// As Prometheus wants them: each family once, with its help and its type before its values.
TEST_F(MetricsTest, EveryFamilyIsWhole) {
  std::istringstream text(Text());
  std::set<std::string> families;
  std::string family, type, line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::string first, second, name;
    words >> first >> second >> name >> type;
    if (first == "#" && second == "HELP") {
      family = name;
      EXPECT_TRUE(families.insert(name).second) << name;
      EXPECT_TRUE(line.ends_with(".")) << line;
      EXPECT_TRUE(name.starts_with("fisherd_") || name.starts_with("process_")) << name;
    } else if (first == "#") {
      EXPECT_EQ(name, family);
    } else {
      const std::string sample = first.substr(0, first.find('{'));
      const std::string suffix = sample.substr(std::min(family.size(), sample.size()));
      EXPECT_TRUE(sample.starts_with(family)) << line;
      EXPECT_THAT(suffix, testing::AnyOf("", "_bucket", "_sum", "_count")) << line;
    }
  }
  EXPECT_GT(families.size(), 5);
}

TEST_F(MetricsTest, CountsWhatBecomesOfBatchesAndSteps) {
  const auto factor = Create("f", Golden(2));
  const auto first = OpenTower(*factor, 0, 1);
  const auto second = OpenTower(*factor, 1, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, first.get()).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 0), golden_batch_, first.get()).ok());  // again
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2, 1), golden_batch_, second.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  const core::Version version = factor->Describe().version;
  ASSERT_TRUE(Read(*factor, {.if_version_not = version}).ok());
  ASSERT_FALSE(Read(*factor, {.op = {.kind = core::OperatorKind::kMatpower,
                                     .exponent = -1,
                                     .damping = std::string("none")}})
                   .ok());
  const std::string text = Text();
  for (const char* line :
       {"fisherd_steps_total{outcome=\"whole\"} 1", "fisherd_steps_total{outcome=\"failed\"} 0",
        "fisherd_batches_total{outcome=\"accepted\"} 2",
        "fisherd_batches_total{outcome=\"duplicate\"} 1", "fisherd_batch_rows_total 4",
        "fisherd_gather_wait_seconds_count 1", "fisherd_commit_seconds_count{phase=\"compute\"} 1",
        "fisherd_commit_seconds_count{phase=\"record\"} 0",
        "fisherd_commit_seconds_bucket{phase=\"compute\",le=\"+Inf\"} 1",
        "fisherd_reads_total{outcome=\"full\"} 1", "fisherd_reads_total{outcome=\"unchanged\"} 1",
        "fisherd_reads_total{outcome=\"error\"} 1", "fisherd_compute_threads 2"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + line + "\n"));
  }
}

TEST_F(MetricsTest, FactorsThatWereChosenHaveFiguresOfTheirOwn) {
  Create("other", Golden());
  const auto factor = Create("watched/a", Golden());
  EXPECT_THAT(Text(), Not(HasSubstr("update_age_seconds{")));
  const auto stream = OpenTower(*factor, 0);
  ASSERT_TRUE(registry_->SetDamping("d", 2.0).ok());
  core::OperatorSpec op = {
      .kind = core::OperatorKind::kMatpower, .exponent = -1, .damping = std::string("d")};
  ASSERT_TRUE(registry_->Register("watched/a", op, {}).ok());
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  const std::string text = Text();
  for (const char* line : {"fisherd_factor_last_step{factor=\"watched/a\"} 1",
                           "fisherd_factor_effective_weight{factor=\"watched/a\"} 0.5",
                           "fisherd_factor_covariance{factor=\"watched/a\",stat=\"min\"} 0.625",
                           "fisherd_factor_covariance{factor=\"watched/a\",stat=\"max\"} 34"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + line + "\n"));
  }
  EXPECT_THAT(text, HasSubstr("fisherd_factor_update_age_seconds{factor=\"watched/a\"} "));
  EXPECT_THAT(text, HasSubstr("fisherd_factor_damping_to_mean_ratio{factor=\"watched/a\","
                              "damping=\"d\"} 0.195"));  // 2 by 61.25/6
  EXPECT_THAT(text, Not(HasSubstr("factor=\"other\"")));
}

// A card without arithmetic.
class FakeDevice : public core::DeviceBackend {
 public:
  std::string name() const override { return "cuda:0 (a card)"; }
  std::string device() const override { return "cuda:0"; }
  int64_t state_budget() const override { return 4096; }
  Stats stats() const override {
    return {.memory_bytes = 8192,
            .free_bytes = 1024,
            .kernel_seconds = 1.5,
            .copy_seconds = 0.5,
            .bytes_to_device = 300,
            .bytes_from_device = 200,
            .pinned_bytes = 64};
  }
  absl::Status Check() const override {
    return lost ? absl::UnavailableError("lost") : absl::OkStatus();
  }
  double Advance(const core::AdvanceStep&, const core::Matrix&, core::Matrix&) override {
    return 0;
  }
  bool lost = false;
};

class DeviceMetricsTest : public core::FactorTest {
 protected:
  DeviceMetricsTest() : DeviceMetricsTest(std::make_unique<FakeDevice>()) {}
  explicit DeviceMetricsTest(std::unique_ptr<FakeDevice> device)
      : FactorTest({.state_budget = 1 << 20, .devices = {{device.get(), 4096}}, .batch_budget = 1}),
        device_(*device) {
    devices_.found.push_back(std::move(device));
  }

  FakeDevice& device_;
  core::Devices devices_;
  Readiness readiness_;
  Metrics metrics_{
      {.registry = &*registry_, .pool = &*pool_, .readiness = &readiness_, .devices = &devices_}};
};

TEST_F(DeviceMetricsTest, ShowsWhatACardHasAndDoes) {
  Create("f", Golden());  // there: it is said nowhere else
  const std::string text = metrics_.Text();
  std::set<std::string> documented;
  std::ifstream names(FISHERD_SOURCE_DIR "/deploy/metrics.txt");
  for (std::string name, type; names >> name >> type;) {
    if (!name.starts_with("fisherd_device_")) continue;
    EXPECT_THAT(text, HasSubstr("# TYPE " + name + " " + type + "\n"));
    documented.insert(name);
  }
  EXPECT_EQ(documented.size(), 10);
  for (const char* sample :
       {"memory_bytes{device=\"cuda:0\"} 8192", "memory_free_bytes{device=\"cuda:0\"} 1024",
        "state_bytes{device=\"cuda:0\"} 48", "state_budget_bytes{device=\"cuda:0\"} 4096",
        "kernel_seconds_total{device=\"cuda:0\"} 1.5", "copy_seconds_total{device=\"cuda:0\"} 0.5",
        "received_bytes_total{device=\"cuda:0\"} 300", "sent_bytes_total{device=\"cuda:0\"} 200",
        "pinned_bytes{device=\"cuda:0\"} 64", "lost{device=\"cuda:0\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\nfisherd_device_") + sample + "\n"));
  }
  device_.lost = true;
  EXPECT_THAT(metrics_.Text(), HasSubstr("\nfisherd_device_lost{device=\"cuda:0\"} 1\n"));
}

}  // namespace
}  // namespace fisherd::server
