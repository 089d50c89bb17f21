// Towers: whoever comes first, in whatever pieces, the bits are the same; and many at once.

#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/end_to_end/server_fixture.h"
#include "tests/long_tests.h"

namespace fisherd::server {
namespace {

constexpr int64_t kInputs = 17;
constexpr int64_t kOutputs = 9;

class TowersTest : public ServerTest {
 protected:
  // The same for one factor's step and tower whoever asks; of awkward values and sizes.
  static Batch RandomBatch(const v1::FactorInfo& factor, int64_t step, int tower) {
    std::mt19937 random(1000 * step + tower);
    std::normal_distribution<double> normal;
    const int64_t rows = 1 + random() % 300;
    Values inputs(rows * kInputs), grads(rows * kOutputs);
    for (double& x : inputs) x = normal(random);
    for (double& x : grads) x = normal(random);
    Batch batch = RawBatch(factor, step, tower, rows, inputs, grads);
    batch.header.set_decay(0.9);
    return batch;
  }

  // Sends a tower's steps in frames of random size; acknowledgements open the window.
  static void Train(v1::FactorService::Stub& stub, int client, const v1::FactorInfo& factor,
                    int tower, int64_t steps, unsigned seed) {
    std::mt19937 random(seed);
    Trainer trainer(stub, client);
    const v1::Progress opened = trainer.Claim(factor.name(), tower);
    for (int64_t step = 1; step <= steps; ++step) {
      if (step >= 1 + opened.window()) {
        trainer.AwaitNext(factor.name(), step - opened.window() + 1);
      }
      if (random() % 3 == 0) std::this_thread::yield();
      trainer.Send(RandomBatch(factor, step, tower), 1 + random() % 50);
    }
    trainer.AwaitNext(factor.name(), steps + 1);
    EXPECT_TRUE(trainer.Finish().ok());
  }

  Values ReadCovariance(const std::string& name) {
    const ReadAnswer answer = ReadAll(stub(), ReadOf(name));
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    return answer.tensors.at(0);
  }
};

TEST_P(TowersTest, TheBitsDoNotDependOnArrivalOrFrames) {
  constexpr int kTowers = 2;
  constexpr int64_t kSteps = 12;
  // One stream, one tower after the other, is the measure.
  const v1::FactorInfo measure = Create("measure", LayerSpec(kInputs, kOutputs, true, kTowers));
  {
    Trainer trainer(stub(), 1);
    for (int tower = 0; tower < kTowers; ++tower) trainer.Claim("measure", tower);
    for (int64_t step = 1; step <= kSteps; ++step) {
      for (int tower = 0; tower < kTowers; ++tower) {
        trainer.Send(RandomBatch(measure, step, tower));
      }
      trainer.AwaitNext("measure", step + 1);
    }
  }
  const Values want = ReadCovariance("measure");
  ASSERT_GT(want[0], 0);
  const unsigned seeds = Repetitions(5, 200);
  for (unsigned seed = 1; seed <= seeds; ++seed) {
    const std::string name = absl::StrCat("seed", seed);
    const v1::FactorInfo factor = Create(name, LayerSpec(kInputs, kOutputs, true, kTowers));
    std::vector<std::thread> towers;
    for (int tower = 0; tower < kTowers; ++tower) {
      towers.emplace_back([&, tower] {
        const auto own = v1::FactorService::NewStub(NewChannel());
        Train(*own, 10 + tower, factor, tower, kSteps, seed * 100 + tower);
      });
    }
    for (std::thread& tower : towers) tower.join();
    EXPECT_EQ(ReadCovariance(name), want) << seed;
    EXPECT_EQ(Describe(name).steps_committed(), kSteps);
  }
}

// Streams of several factors, readers, and callers of everything else, all at once.
TEST_P(TowersTest, ManyFactorsAtOnce) {
  constexpr int kFactors = 4;
  constexpr int kTowers = 2;
  constexpr int64_t kSteps = 8;
  SetDamping("d", 1);
  std::vector<v1::FactorInfo> factors;
  for (int f = 0; f < kFactors; ++f) {
    factors.push_back(Create(absl::StrCat("f/", f), LayerSpec(kInputs, kOutputs, true, kTowers)));
    v1::RegisterRequest request;
    request.set_factor(factors.back().name());
    *request.mutable_operator_() = Matpower(-0.5, "d");
    request.mutable_policy()->set_kind(v1::REFRESH_KIND_EVERY_N_STEPS);
    request.mutable_policy()->set_steps(2);
    v1::RegisterResponse response;
    ASSERT_TRUE(Call(&v1::FactorService::Stub::Register, request, &response).ok());
  }
  std::vector<std::thread> threads;
  for (int f = 0; f < kFactors; ++f) {
    for (int tower = 0; tower < kTowers; ++tower) {
      threads.emplace_back(
          [&, f, tower] { Train(stub(), 10 * f + tower, factors[f], tower, kSteps, f + tower); });
    }
    threads.emplace_back([&, f] {
      for (int i = 0; i < 10; ++i) {
        EXPECT_TRUE(ReadAll(stub(), ReadOf(factors[f].name(), Matpower(-0.5, "d"))).status.ok());
        SetDamping("d", 1 + i);
        v1::UpdateInversesRequest request;
        v1::UpdateInversesResponse response;
        EXPECT_TRUE(Call(&v1::FactorService::Stub::UpdateInverses, request, &response).ok());
        EXPECT_EQ(response.updated(), kFactors);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const v1::FactorInfo& factor : factors) {
    const v1::FactorInfo after = Describe(factor.name());
    EXPECT_EQ(after.steps_committed(), kSteps);
    EXPECT_EQ(after.held_batches(), 0);
    EXPECT_EQ(after.held_bytes(), 0);
    EXPECT_EQ(after.pinned_bytes(), 0);
    EXPECT_EQ(ReadCovariance(factor.name()), ReadCovariance(factors[0].name()));
  }
}

FISHERD_ON_EVERY_TRANSPORT(TowersTest);

}  // namespace
}  // namespace fisherd::server
