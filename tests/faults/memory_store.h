// A disk that forgets: a FactorStore whose images are of chosen steps only.

#ifndef FISHERD_TESTS_FAULTS_MEMORY_STORE_H_
#define FISHERD_TESTS_FAULTS_MEMORY_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/factor_registry.h"
#include "core/factor_store.h"
#include "core/mutex.h"

namespace fisherd::faults {

// What is "on disk": for each factor its image at the last step that `saves` chose, and every
// outcome that was recorded. Thread-safe.
class MemoryStore : public core::FactorStore {
 public:
  // Asked once for every step that ends.
  using Saves = std::function<bool(const std::string& factor, int64_t step)>;
  explicit MemoryStore(Saves saves) : saves_(std::move(saves)) {}

  absl::Status CheckWritable() const override { return absl::OkStatus(); }
  absl::Status RecordFactor(const core::FactorImage& image) override;
  absl::Status RecordDeletion(std::string_view name) override;
  absl::Status RecordDamping(std::string_view, std::optional<double>) override {
    return absl::OkStatus();
  }
  void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                     const core::StepRun& run, Done done) override;
  void LogStep(core::StepRecord record, Done done) override;
  void StepEnded(const std::shared_ptr<core::Factor>& factor) override;
  void WantDurable(const std::string&) override {}

  // Nothing reaches the disk from here on: the process is as good as dead.
  void Freeze();
  // Gives the next process what it finds.
  absl::Status Thaw(core::FactorRegistry& registry);

  // Of the image that there is.
  int64_t saved_step(const std::string& factor) const;
  // Steps that have ended, of all factors and processes.
  int64_t ended() const;
  void AwaitEnded(int64_t steps, absl::Time deadline = absl::InfiniteFuture());

 private:
  struct Disk {
    core::FactorImage image;              // its state is its own copy; null: the initial one
    std::vector<core::StepRun> outcomes;  // and the ledgers that they belong to
    std::vector<int> ledgers;
  };

  const Saves saves_;
  mutable core::Mutex mutex_;
  core::CondVar changed_;
  bool frozen_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Disk> disks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_MEMORY_STORE_H_
