#include "tests/faults/fault_test.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/channel.h"
#include "grpcpp/create_channel.h"
#include "server/codec.h"

namespace fisherd::faults {

Client ConnectTo(int port) {
  grpc::ChannelArguments arguments = DefaultChannelArguments();
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  return Client::FromChannel(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments));
}

UpdateStreamOptions Impatient(v1::BatchForm form) {
  return {.form = form,
          .first_reconnect_delay = absl::Milliseconds(1),
          .max_reconnect_delay = absl::Milliseconds(20)};
}

// ---- Trainers

namespace {

constexpr absl::Duration kTooLong = absl::Minutes(2);  // by then a test has failed

// One life of a trainer; false if it has died.
bool TrainOnce(const Training& training, const TowerPart& part) {
  Client client = ConnectTo(part.port);
  UpdateStream stream = client.OpenUpdates(part.stream);
  std::vector<UpdateWriter> writers;
  for (const std::string& factor : training.factors) {
    auto writer = stream.Open(factor, part.tower, {.take_over = true, .timeout = kTooLong});
    if (!writer.ok()) {
      ADD_FAILURE() << writer.status();
      return true;
    }
    writers.push_back(*std::move(writer));
  }
  for (int64_t round = 1; round <= training.steps; ++round) {
    for (UpdateWriter& writer : writers) {
      const int64_t step = writer.next_step();
      if (step > training.steps) continue;
      if (part.dies()) {
        stream.Close(absl::ZeroDuration()).IgnoreError();
        return false;
      }
      const ExactBatch batch = MakeBatch(training.layer, writer.factor(), step, part.tower);
      const absl::StatusOr<int64_t> written = writer.Write(batch.view(), kAccumulate, kTooLong);
      if (absl::IsUnavailable(written.status())) continue;  // not even what form it should have
      EXPECT_TRUE(written.ok()) << written.status();
      if (!written.ok()) return true;
      EXPECT_EQ(*written, step);
      part.watch(writer);
    }
    const bool done = std::ranges::all_of(
        writers, [&](const UpdateWriter& w) { return w.next_step() > training.steps; });
    if (!done && round == training.steps) --round;
  }
  for (UpdateWriter& writer : writers) {
    const absl::Status durable = writer.WaitDurable(training.steps, kTooLong);
    EXPECT_TRUE(durable.ok()) << durable;
    part.watch(writer);
  }
  return true;
}

}  // namespace

void Train(const Training& training, const TowerPart& part) {
  while (!TrainOnce(training, part)) {
  }
}

Tower::Tower(const Training& training, const std::string& factor, int tower, int port,
             const UpdateStreamOptions& options)
    : layer_(training.layer), client_(ConnectTo(port)), stream_(client_.OpenUpdates(options)) {
  auto writer = stream_.Open(factor, tower, {.take_over = true, .timeout = kTooLong});
  EXPECT_TRUE(writer.ok()) << writer.status();
  writer_ = *std::move(writer);
}

absl::StatusOr<int64_t> Tower::TryWrite() {
  const ExactBatch batch =
      MakeBatch(layer_, writer_->factor(), writer_->next_step(), writer_->tower());
  return writer_->Write(batch.view(), kAccumulate, kTooLong);
}

int64_t Tower::Write() {
  const absl::StatusOr<int64_t> step = TryWrite();
  EXPECT_TRUE(step.ok()) << step.status();
  return step.value_or(0);
}

void Tower::WriteThrough(int64_t step) {
  while (writer_->next_step() <= step) {
    const absl::Status status = TryWrite().status();
    const std::string reason = ErrorReason(status);
    ASSERT_TRUE(status.ok() || reason == "LATE" || reason == "STEP_LATE") << status;
  }
}

std::vector<std::vector<int>> Counted(const std::vector<Tower*>& towers, int64_t steps) {
  std::vector<std::vector<int>> counted(static_cast<size_t>(steps));
  for (Tower* tower : towers) {
    for (int64_t step = 1; step <= steps; ++step) {
      const absl::Status status = tower->writer().WaitDurable(step, kTooLong);
      const std::string reason = ErrorReason(status);
      EXPECT_TRUE(status.ok() || reason == "STEP_FAILED" || reason == "LATE") << status;
      if (status.ok()) counted[static_cast<size_t>(step - 1)].push_back(tower->number());
    }
  }
  return counted;
}

// ---- The server

FaultTest::FaultTest() {
  options_.listen = {"127.0.0.1:0"};
  options_.state_budget = int64_t{256} << 20;
  options_.batch_budget = int64_t{64} << 20;
  options_.compute_threads = 2;
}

void FaultTest::StartServer() {
  server::Durability durability = {.store = store_.get(), .restore = nullptr};
  if (store_ != nullptr) {
    durability.restore = [&](core::FactorRegistry& registry) { return store_->Thaw(registry); };
  }
  auto server = server::Server::Start(options_, durability);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  client_ = std::make_unique<Client>(ConnectTo(port()));
}

void FaultTest::KillServer(const std::vector<Proxy*>& proxies) {
  for (Proxy* proxy : proxies) {
    proxy->SetTarget(0);
    proxy->CutAll();
  }
  if (store_ != nullptr) store_->Freeze();
  client_ = nullptr;
  server_ = nullptr;
}

FactorOptions FaultTest::Accumulating(int towers) {
  return {.towers = towers, .zero_debias = false};
}

void FaultTest::Create(const Training& training, const FactorOptions& options) {
  for (const std::string& factor : training.factors) {
    const auto info = client().CreateFactor(factor,
                                            {.input_size = training.layer.inputs,
                                             .output_size = training.layer.outputs,
                                             .has_bias = true},
                                            options);
    ASSERT_TRUE(info.ok()) << info.status();
  }
}

v1::FactorInfo FaultTest::Describe(const std::string& factor) {
  const auto info = client().Describe(factor);
  EXPECT_TRUE(info.ok()) << info.status();
  return info.value_or(v1::FactorInfo());
}

Matrix<double> FaultTest::ReadCovariance(const std::string& factor) {
  const auto reading = client().Read<float>(factor, Covariance());
  EXPECT_TRUE(reading.ok()) << reading.status();
  return reading.ok() ? Elements(reading->value).cast<double>() : Matrix<double>();
}

void FaultTest::ExpectWhole(const Training& training) {
  for (const std::string& factor : training.factors) {
    const auto sums = WholeSums(training.layer, factor, training.steps, training.towers);
    EXPECT_EQ(ReadCovariance(factor), sums.back()) << factor;
    const v1::FactorInfo info = Describe(factor);
    EXPECT_EQ(info.next(), training.steps + 1) << factor;
    EXPECT_EQ(info.durable(), training.steps) << factor;
    EXPECT_EQ(info.steps_committed(), training.steps) << factor;
    EXPECT_EQ(info.steps_failed(), 0) << factor;
    EXPECT_EQ(info.held_batches(), 0) << factor;
    EXPECT_EQ(info.held_bytes(), 0) << factor;
  }
}

}  // namespace fisherd::faults
