// A disk that forgets: a FactorStore whose images are of chosen steps only.

#ifndef FISHERD_TESTS_FAULTS_MEMORY_STORE_H_
#define FISHERD_TESTS_FAULTS_MEMORY_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

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

  void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                     const core::StepRun& run) override;
  bool StepEnded(const core::FactorImage& image) override;

  // The factor as it is created, with a state of zeros.
  void SaveNew(const std::string& factor, const core::FactorSpec& spec, uint64_t incarnation,
               const core::MatrixShape& shape);

  // Nothing reaches the disk from here on: the process is as good as dead.
  void Freeze();
  // What the next process finds; valid until the store is used again.
  std::vector<core::FactorImage> Thaw();

  // Of the image that there is.
  int64_t saved_step(const std::string& factor) const;
  // Steps that have ended, of all factors and processes.
  int64_t ended() const;
  void AwaitEnded(int64_t steps, absl::Time deadline = absl::InfiniteFuture());

 private:
  struct Disk {
    core::FactorImage image;
    std::unique_ptr<core::Matrix> state;
    std::vector<core::Ledger> ledgers;  // of the last step that ended, saved or not
  };
  void Save(const core::FactorImage& image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Saves saves_;
  mutable core::Mutex mutex_;
  core::CondVar changed_;
  bool frozen_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Disk> disks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_MEMORY_STORE_H_
