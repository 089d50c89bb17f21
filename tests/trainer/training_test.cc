// Training without curvature needs no server; with it, see tests/end_to_end.

#include "client/trainer/training.h"

#include <sys/socket.h>

#include <array>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "fisherd/client.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

Split SomeSplit() {
  // Ten classes, each with a pixel of its own that is bright.
  Random random({5});
  Examples examples;
  examples.inputs.resize(kTrainSize + 100, 64);
  for (float& pixel : examples.inputs.reshaped()) pixel = static_cast<float>(random.Uniform());
  for (int row = 0; row < examples.inputs.rows(); ++row) {
    examples.labels.push_back(row % 10);
    examples.inputs(row, row % 10) += 2;
  }
  return SplitExamples(examples, kTrainSize, 1);
}

// Trains both towers, in two threads, from these seeds.
std::array<absl::StatusOr<RunResult>, 2> TrainTowers(const Method& method, int epochs,
                                                     std::array<uint32_t, 2> seeds) {
  int sockets[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  std::array<absl::StatusOr<RunResult>, 2> runs;
  const auto train = [&](int tower) {
    TowerLink link(sockets[tower], tower);
    // Never called.
    Client client =
        Client::FromChannel(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials()));
    runs[tower] = Train(method, {.link = link,
                                 .client = client,
                                 .split = SomeSplit(),
                                 .epochs = epochs,
                                 .seed = seeds[tower]});
  };
  std::thread other(train, 1);
  train(0);
  other.join();
  return runs;
}

TEST(TrainingTest, TwoTowersLearn) {
  auto [first, second] =
      TrainTowers({.name = "SGD", .learning_rate = 0.2, .momentum = 0.9}, 3, {1, 1});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->steps, 33);
  ASSERT_EQ(first->epochs.size(), 4);
  EXPECT_NEAR(first->epochs[0].test.accuracy, 0.1, 0.15);
  EXPECT_GT(first->epochs[3].test.accuracy, 0.8);
  EXPECT_LT(first->epochs[3].train.loss, first->epochs[1].train.loss);
  EXPECT_GT(first->seconds_per_step, 0);
  EXPECT_EQ(first->seconds_in_rpc, 0);
  EXPECT_TRUE(second->epochs.empty());
  EXPECT_FALSE(first->diverged);
}

TEST(TrainingTest, TheSameAgain) {
  const Method adam = {.name = "Adam", .adam = true, .learning_rate = 0.01};
  absl::StatusOr<RunResult> first = TrainTowers(adam, 2, {3, 3})[0];
  absl::StatusOr<RunResult> again = TrainTowers(adam, 2, {3, 3})[0];
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(first->epochs[2].train.loss, again->epochs[2].train.loss);
}

TEST(TrainingTest, TowersThatDifferAreNoticed) {
  for (const absl::StatusOr<RunResult>& run :
       TrainTowers({.name = "SGD", .learning_rate = 0.1}, 1, {1, 2})) {
    EXPECT_EQ(run.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(run.status().message()), testing::HasSubstr("the towers differ"));
  }
}

TEST(TrainingTest, ARunThatDivergesEnds) {
  auto [first, second] = TrainTowers({.name = "SGD", .learning_rate = 1e38}, 50, {1, 1});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(first->diverged);
  EXPECT_TRUE(second->diverged);
  EXPECT_LT(first->steps, 50 * 11);
}

}  // namespace
}  // namespace fisherd::trainer
