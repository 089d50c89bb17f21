// Trainers that push as fast as they may: fisherd's, by the client library, and those of the raw
// stream of bytes.

#ifndef FISHERD_TESTS_BENCH_STREAM_TRAINERS_H_
#define FISHERD_TESTS_BENCH_STREAM_TRAINERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "fisherd/client.h"

namespace fisherd::bench {

// The layer of all factors: a batch of it is hardly more than its bytes.
inline constexpr int64_t kLayerSize = 32;
// Of one row, inputs and gradients, FLOAT32.
inline constexpr int64_t kRowBytes = 2 * kLayerSize * 4;

// Used by one thread at a time.
class Trainer {
 public:
  virtual ~Trainer() = default;
  // One batch of each factor, without waiting for what becomes of it.
  virtual void Push() = 0;
  // Until all that was pushed has ended.
  virtual void Await() = 0;
};

// A connection that no other channel of this process shares.
std::shared_ptr<grpc::Channel> OwnChannel(const std::string& address);

// "factor/0", …
std::string FactorName(int index);
// Creates `count` of them, of the layer above.
void CreateFactors(Client& client, int count, const FactorOptions& options);

struct OurOptions {
  std::string address;
  std::vector<int> factors;  // indexes
  int tower = 0;
  int64_t batch_bytes = 0;
};

class OurTrainer final : public Trainer {
 public:
  // Ends the benchmark on any error, as the others do.
  explicit OurTrainer(const OurOptions& options);
  // Drops what has not ended.
  ~OurTrainer() override;
  void Push() override;
  void Await() override;
  // One round; false if the window or the server had no room in time.
  bool PushWithin(absl::Duration timeout);
  // Batches that have ended, of all factors, since this trainer began.
  int64_t ended() const;

 private:
  Batch batch() const;

  Matrix<float> inputs_;
  Matrix<float> gradients_;
  Client client_;
  UpdateStream stream_;
  std::vector<UpdateWriter> writers_;
  std::vector<int64_t> first_steps_;
};

std::unique_ptr<Trainer> MakeRawTrainer(const std::string& address, int factors,
                                        int64_t batch_bytes);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_TRAINERS_H_
