// Two towers in two threads, and a server in this process.

#include "client/trainer/natural_gradient.h"

#include <sys/socket.h>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/trainer/report.h"
#include "client/trainer/training.h"
#include "gtest/gtest.h"
#include "server/options.h"
#include "server/server.h"

namespace fisherd::trainer {
namespace {

constexpr int kSizes[] = {3, 4, 2};
constexpr Curvature kInverse = {-1, 0.5};

Matrix RandomMatrix(int rows, int cols, Random& random) {
  Matrix matrix(rows, cols);
  for (float& element : matrix.reshaped()) element = static_cast<float>(random.Normal());
  return matrix;
}

class NaturalGradientTest : public testing::Test {
 protected:
  void SetUp() override {
    server::Options options;
    options.listen = {"127.0.0.1:0"};
    options.state_budget = options.batch_budget = 64 << 20;
    absl::StatusOr<std::unique_ptr<server::Server>> started = server::Server::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  Client Connect() {
    absl::StatusOr<Client> client = Client::Connect("127.0.0.1:" + std::to_string(server_->port()));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  std::unique_ptr<server::Server> server_;
};

TEST_F(NaturalGradientTest, PreconditionsWithTheFisherOfBothTowers) {
  Client client = Connect();
  ASSERT_TRUE(CreateFactors(client, kSizes, kInverse).ok());
  std::vector<ExactFisher> exact = {{3, 4, kFisherDecay}, {4, 2, kFisherDecay}};
  std::array<Layers, kTowers> inputs, outputs_grads;
  Layers gradients;
  const auto work = [&](int tower) {
    // Processes of their own would be two clients; so are these.
    Client own = Connect();
    absl::StatusOr<NaturalGradient> natural = NaturalGradient::Open(own, 2, kInverse, tower);
    ASSERT_TRUE(natural.ok()) << natural.status();
    for (int step = 0; step < 3; ++step) {
      Layers served = gradients;
      ASSERT_TRUE(natural->Precondition(inputs[tower], outputs_grads[tower], served).ok());
      if (tower == 1) continue;
      for (int layer = 0; layer < 2; ++layer) {
        exact[layer].Add({{{inputs[0][layer], outputs_grads[0][layer]},
                           {inputs[1][layer], outputs_grads[1][layer]}}});
        const MatrixXd fisher = exact[layer].Value();
        const MatrixXd expected =
            gradients[layer].cast<double>().array() / (fisher.array() + kInverse.damping);
        EXPECT_TRUE(served[layer].cast<double>().isApprox(expected, 1e-6)) << layer;
        absl::StatusOr<MatrixXd> covariance = natural->Covariance(layer);
        ASSERT_TRUE(covariance.ok()) << covariance.status();
        EXPECT_LT(Compare(*covariance, fisher, {}).largest_difference, kTolerance);
      }
    }
  };
  Random random({1});
  for (int layer = 0; layer < 2; ++layer) {
    gradients.push_back(RandomMatrix(kSizes[layer] + 1, kSizes[layer + 1], random));
    for (int tower = 0; tower < kTowers; ++tower) {
      inputs[tower].push_back(RandomMatrix(5, kSizes[layer], random));
      outputs_grads[tower].push_back(RandomMatrix(5, kSizes[layer + 1], random));
    }
  }
  std::thread other(work, 1);
  work(0);
  other.join();
}

TEST_F(NaturalGradientTest, CreateBeginsAnewAndDeleteLeavesNothing) {
  Client client = Connect();
  ASSERT_TRUE(CreateFactors(client, kSizes, kInverse).ok());
  const uint64_t before = client.Describe(FactorName(kInverse, 0))->version().incarnation();
  ASSERT_TRUE(CreateFactors(client, kSizes, kInverse).ok());
  absl::StatusOr<v1::FactorInfo> info = client.Describe(FactorName(kInverse, 0));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_GT(info->version().incarnation(), before);
  EXPECT_EQ(info->spec().towers(), kTowers);
  ASSERT_EQ(info->registrations_size(), 1);
  EXPECT_EQ(info->registrations(0).operator_().matpower().exponent(), -1);
  ASSERT_TRUE(DeleteFactors(client, kSizes, kInverse).ok());
  EXPECT_TRUE(client.List()->empty());
  EXPECT_TRUE(client.ListDampings()->empty());
  EXPECT_EQ(DeleteFactors(client, kSizes, kInverse).code(), absl::StatusCode::kNotFound);
}

TEST_F(NaturalGradientTest, TrainingIsProven) {
  absl::StatusOr<Examples> digits =
      ReadDigits(std::string(FISHERD_SOURCE_DIR) + "/client/trainer/data/digits.csv.gz");
  ASSERT_TRUE(digits.ok()) << digits.status();
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  absl::StatusOr<RunResult> result;
  const auto train = [&](int tower) {
    TowerLink link(sockets[tower], tower);
    Client client = Connect();
    absl::StatusOr<RunResult> run = Train({.name = "natural",
                                           .learning_rate = 0.03,
                                           .momentum = 0.9,
                                           .curvature = Curvature{-0.5, 0.001}},
                                          {.link = link,
                                           .client = client,
                                           .split = SplitExamples(*digits, kTrainSize, 1),
                                           .epochs = 1,
                                           .seed = 1});
    EXPECT_TRUE(run.ok()) << run.status();
    if (tower == 0) result = std::move(run);
  };
  std::thread other(train, 1);
  train(0);
  other.join();
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(Proven({{*result}})) << ProofText({{*result}});
  ASSERT_EQ(result->proof.size(), 3);
  EXPECT_GT(result->proof[0].comparison.dark_entries, 0);
  EXPECT_LT(result->proof[0].batch_mean_share, 0.05);
  EXPECT_LT(result->epochs[1].train.loss, result->epochs[0].train.loss / 2);
  EXPECT_GT(result->seconds_in_rpc, 0);
}

}  // namespace
}  // namespace fisherd::trainer
