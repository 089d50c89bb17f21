// A registry on a data directory, in this process, and a way to step its factors.

#ifndef FISHERD_TESTS_BENCH_STORE_WORLD_H_
#define FISHERD_TESTS_BENCH_STORE_WORLD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/backend_cpu.h"
#include "core/compute_pool.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "core/timer_queue.h"
#include "server/store/store.h"

namespace fisherd::bench {

// Ends the program where something cannot be done.
class World {
 public:
  // Nothing is saved but when it is asked for.
  explicit World(std::string directory);
  ~World();
  // Closes the data directory without saving, and opens it again; answers how long what was saved
  // took to come back, in seconds.
  double Restart();

  server::Store& store() { return *store_; }
  // A square layer without a bias, whose state has `bytes`.
  std::shared_ptr<core::Factor> Create(const std::string& name, int64_t bytes,
                                       core::DurabilityLevel level);
  std::shared_ptr<core::Factor> Find(const std::string& name) { return *registry_->Find(name); }
  // Saves what has changed; seconds.
  double Save();

 private:
  double Open();
  void Close();

  const std::string directory_;
  core::BackendCpu backend_{nullptr};
  std::optional<core::ComputePool> pool_;
  std::optional<core::TimerQueue> timers_;
  std::unique_ptr<server::Store> store_;
  std::optional<core::FactorRegistry> registry_;
};

// Tower 0 of a factor, with batches of `rows`.
class Trainer : public core::ProgressListener {
 public:
  static std::shared_ptr<Trainer> Of(const std::shared_ptr<core::Factor>& factor, int64_t rows = 1);
  int64_t batch_bytes() const { return static_cast<int64_t>(batch_.size() * sizeof(float)); }
  // One step, from the sending of its batch to the word that it has ended; seconds.
  double Step();

  void OnProgress(const std::shared_ptr<core::Factor>& factor) override;
  void OnHold(const std::shared_ptr<core::Factor>& factor, int tower, int64_t step) override;

 private:
  explicit Trainer(std::shared_ptr<core::Factor> factor) : factor_(std::move(factor)) {}

  const std::shared_ptr<core::Factor> factor_;
  std::vector<float> batch_;
  core::BatchHeader header_;
  core::Mutex mutex_;
  core::CondVar changed_;
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STORE_WORLD_H_
