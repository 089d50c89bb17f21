// A disk that is full, slow, or broken under a running server: what was durable stays so, what is
// served stays right, and nothing is told that is not true.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/faults/fault_test.h"
#include "tests/faults/server_process.h"
#include "tests/http_get.h"
#include "tests/test_path.h"

namespace fisherd::faults {
namespace {

using ::testing::HasSubstr;

class DiskTest : public testing::TestWithParam<v1::DurabilityLevel> {
 protected:
  DiskTest() {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    Disk('-');
    training_ = {.layer = {}, .factors = {"f"}, .towers = 1, .steps = 40};
  }
  ~DiskTest() override {
    server_.Kill();
    if (HasFailure()) ADD_FAILURE() << server_.log();
    std::filesystem::remove_all(directory_);
  }

  void Disk(char mode) {
    const int file = open(control_.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(pwrite(file, &mode, 1, 0), 1);
    close(file);
  }
  void Start() {
    ASSERT_TRUE(server_.Start(
        {"--snapshot-interval=10ms", "--disk-reserve=1", "--http=127.0.0.1:0"},
        {absl::StrCat("LD_PRELOAD=", FISHERD_DISK_SHIM), "FISHERD_DISK_SHIM=" + control_,
         "FISHERD_DISK_SHIM_DIR=" + directory_ + "/data"}));
  }
  void Create() {
    const auto made = Connect().CreateFactor("f",
                                             {.input_size = training_.layer.inputs,
                                              .output_size = training_.layer.outputs,
                                              .has_bias = true},
                                             {.zero_debias = false, .durability = GetParam()});
    ASSERT_TRUE(made.ok()) << made.status();
  }
  Client Connect() const { return ConnectTo(server_.port()); }

  void ExpectWhole() {
    Client client = Connect();
    const auto reading = client.Read<float>("f", Covariance());
    ASSERT_TRUE(reading.ok()) << reading.status();
    const auto& diag = reading->value;
    const Matrix<float> elements = Eigen::Map<const Matrix<float>>(
        diag.diag_part().data(), diag.weight().rows() + 1, diag.weight().cols());
    EXPECT_EQ(elements.cast<double>(), WholeSums(training_.layer, "f", training_.steps, 1).back());
    EXPECT_EQ(client.Describe("f")->durable(), training_.steps);
  }
  // A trainer that writes again what a full or failed disk has refused, until all is durable.
  void WriteAll() {
    Client client = Connect();
    UpdateStream stream = client.OpenUpdates(Impatient());
    auto writer = stream.Open("f", 0);
    ASSERT_TRUE(writer.ok()) << writer.status();
    while (writer->next_step() <= training_.steps || !writer->WaitDurable(training_.steps).ok()) {
      if (writer->next_step() > training_.steps) continue;
      const ExactBatch batch = MakeBatch(training_.layer, "f", writer->next_step(), 0);
      const absl::Status status = writer->Write(batch.view(), kAccumulate).status();
      const std::string reason = ErrorReason(status);
      ASSERT_TRUE(status.ok() || reason == "DISK_FULL" || reason == "DISK_FAILED") << status;
      if (!status.ok()) absl::SleepFor(absl::Milliseconds(10));
    }
  }
  std::string Metrics() const {
    const std::string log = server_.log();
    const std::string before = ", HTTP port ";
    return HttpGet(std::atoi(log.c_str() + log.rfind(before) + before.size()), "/metrics");
  }
  // Whatever the disk does.
  void ExpectReadsGoOn() {
    const auto reading = Connect().Read<float>("f", Covariance(), {.timeout = absl::Seconds(20)});
    EXPECT_TRUE(reading.ok()) << reading.status();
  }
  // One that has not been created before: until then it may have to be tried.
  std::string WhyNothingIsCreated() {
    Client client = Connect();
    for (int i = 0; i < 200; ++i) {
      const absl::Status status = client.SetDamping("d", 1);
      if (!status.ok() && !absl::IsDeadlineExceeded(status)) return ErrorReason(status);
      absl::SleepFor(absl::Milliseconds(5));
    }
    return "";
  }

  const std::string directory_ = TestPath();
  const std::string control_ = directory_ + "/control";
  ServerProcess server_{directory_};
  Training training_;
};

// One whose write finds that there is no space waits for it, and so do the trainers.
TEST_P(DiskTest, AFullDiskIsWaitedFor) {
  Start();
  Create();
  std::thread trainer([&] { WriteAll(); });
  absl::SleepFor(absl::Milliseconds(20));
  Disk('f');
  // Finds it out, and waits; under SYNC a step may have before.
  std::thread first([&] {
    Client client = Connect();
    while (!client.SetDamping("first", 1).ok()) absl::SleepFor(absl::Milliseconds(10));
  });
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(WhyNothingIsCreated(), "DISK_FULL");
  EXPECT_THAT(Metrics(), HasSubstr("\nfisherd_disk_writable 0\n"));
  EXPECT_THAT(Metrics(), HasSubstr("\nfisherd_disk_failed 0\n"));
  for (int i = 0; i < 20; ++i) ExpectReadsGoOn();
  Disk('-');
  first.join();
  trainer.join();
  ExpectWhole();
  EXPECT_EQ(Connect().ListDampings("first")->size(), 1);
  server_.Kill();
  Start();
  ExpectWhole();
}

TEST_P(DiskTest, AWriteThatFailsIsTheLastOne) {
  for (const char mode : {'e', 'y'}) {
    server_.Kill();
    std::filesystem::remove_all(directory_ + "/data");
    Start();
    Create();
    std::thread trainer([&] { WriteAll(); });
    absl::SleepFor(absl::Milliseconds(10));
    Disk(mode);
    EXPECT_EQ(WhyNothingIsCreated(), "DISK_FAILED") << mode;
    EXPECT_THAT(Metrics(), HasSubstr("\nfisherd_disk_failed 1\n"));
    ExpectReadsGoOn();
    Disk('-');
    // Not tried again, although it would work now.
    EXPECT_EQ(WhyNothingIsCreated(), "DISK_FAILED") << mode;
    server_.Kill();
    Start();
    trainer.join();
    ExpectWhole();
  }
}

TEST_P(DiskTest, ShortWritesAndSlowSyncsAreOnlySlow) {
  for (const char mode : {'s', 'w'}) {
    server_.Kill();
    std::filesystem::remove_all(directory_ + "/data");
    training_.steps = mode == 'w' ? 4 : 40;
    Start();
    Create();
    Disk(mode);
    std::thread trainer([&] { WriteAll(); });
    ExpectReadsGoOn();
    trainer.join();
    ExpectWhole();
    server_.Kill();
    Disk('-');
    Start();
    ExpectWhole();
  }
}

// As large as a few states: snapshots and logs fill it, and what they free is used again.
TEST_P(DiskTest, AFileSystemThatIsFilledUp) {
  const std::string data = directory_ + "/data";
  std::filesystem::create_directories(data);
  if (mount("tmpfs", data.c_str(), "tmpfs", 0, "size=32m") != 0) {
    GTEST_SKIP() << "needs the right to mount";
  }
  training_.steps = 200;
  Start();
  Create();
  std::thread trainer([&] { WriteAll(); });
  const std::string filler = data + "/filler";
  {
    std::ofstream file(filler, std::ios::binary);
    const std::string block(1 << 16, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  for (int i = 0; i < 20; ++i) ExpectReadsGoOn();
  absl::SleepFor(absl::Milliseconds(300));
  std::filesystem::remove(filler);
  trainer.join();
  ExpectWhole();
  server_.Kill();
  Start();
  ExpectWhole();
  server_.Kill();
  umount(data.c_str());
}

INSTANTIATE_TEST_SUITE_P(Levels, DiskTest,
                         testing::Values(v1::DURABILITY_LEVEL_SNAPSHOT, v1::DURABILITY_LEVEL_SYNC),
                         [](const auto& info) {
                           return info.param == v1::DURABILITY_LEVEL_SYNC ? "Sync" : "Snapshot";
                         });

}  // namespace
}  // namespace fisherd::faults
