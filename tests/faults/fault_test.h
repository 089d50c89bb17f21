// A server, the networks between it and its trainers, and trainers that go on whatever happens.

#ifndef FISHERD_TESTS_FAULTS_FAULT_TEST_H_
#define FISHERD_TESTS_FAULTS_FAULT_TEST_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fisherd/client.h"
#include "server/server.h"
#include "tests/faults/exact_batches.h"
#include "tests/faults/history.h"
#include "tests/faults/memory_store.h"
#include "tests/faults/proxy.h"

namespace fisherd::faults {

// Over a connection of its own, as another process would have.
Client ConnectTo(int port);

// Tries again soon.
UpdateStreamOptions Impatient(v1::BatchForm form = v1::BATCH_FORM_RAW);

// What towers write: steps 1 to `steps` of some factors.
struct Training {
  Layer layer;
  std::vector<std::string> factors;
  int towers = 2;
  int64_t steps = 1;
};

// One tower's part of a training.
struct TowerPart {
  int tower = 0;
  int port = 0;
  UpdateStreamOptions stream = Impatient();
  // Asked before every batch: the trainer dies here, and another one begins where the factors are.
  std::function<bool()> dies = [] { return false; };
  // Told after every batch, and at the end.
  std::function<void(const UpdateWriter&)> watch = [](const UpdateWriter&) {};
};

// Writes until every step is durable, and expects that all of them count.
void Train(const Training& training, const TowerPart& part);

// One tower's trainer of one factor, step by step.
class Tower {
 public:
  Tower(const Training& training, const std::string& factor, int tower, int port,
        const UpdateStreamOptions& options = Impatient());

  UpdateWriter& writer() { return *writer_; }
  UpdateStream& stream() { return stream_; }
  int number() const { return writer_->tower(); }
  // Writes the next step; how that went is the answer.
  absl::StatusOr<int64_t> TryWrite();
  // Writes the next step, which it returns.
  int64_t Write();
  // Writes all steps up to that one that have not ended without it.
  void WriteThrough(int64_t step);

 private:
  const Layer layer_;
  Client client_;
  UpdateStream stream_;
  std::optional<UpdateWriter> writer_;
};

// Which towers were told that they counted in steps 1 to `steps`, once that is for good; each must
// have been told.
std::vector<std::vector<int>> Counted(const std::vector<Tower*>& towers, int64_t steps);

class FaultTest : public testing::Test {
 protected:
  FaultTest();

  // With options_ and, if there is one, from what the store has.
  void StartServer();
  // As by kill -9: nothing more is stored or heard of it.
  void KillServer(const std::vector<Proxy*>& proxies);

  // Plain accumulation from zeros.
  static FactorOptions Accumulating(int towers);
  void Create(const Training& training, const FactorOptions& options);
  v1::FactorInfo Describe(const std::string& factor);
  Matrix<double> ReadCovariance(const std::string& factor);
  // Every factor of a training in which nothing was lost.
  void ExpectWhole(const Training& training);

  int port() const { return server_->port(); }
  Client& client() { return *client_; }

  server::Options options_;
  std::unique_ptr<MemoryStore> store_;
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<Client> client_;
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_FAULT_TEST_H_
