// A data directory: factors that outlive the server (docs/durability.md).
//
//   DIR/LOCK           held while a server has it open
//   DIR/manifest/      see Manifest
//   DIR/generations/   tensors, see Snapshotter
//   DIR/backups/       what Backup made
//   DIR/transfers/     exports and imports under way

#ifndef FISHERD_SERVER_STORE_STORE_H_
#define FISHERD_SERVER_STORE_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/factor_registry.h"
#include "core/factor_store.h"
#include "core/mutex.h"
#include "server/store/manifest.h"
#include "server/store/recovery_progress.h"
#include "server/store/snapshotter.h"

namespace fisherd::server {

// Open, Start, Close, in this order and from one thread; between the two latter thread-safe. What
// does not say otherwise may take as long as a disk does, and fails as in disk_error.h.
class Store : public core::FactorStore {
 public:
  struct Options {
    std::string directory;  // made if there is none
    absl::Duration snapshot_interval = absl::Seconds(60);
    int64_t disk_reserve = int64_t{64} << 20;  // bytes; below it the disk counts as full
  };
  // FAILED_PRECONDITION if another server has it, or a later one has made it; DATA_LOSS if what all
  // factors need is damaged.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const Options& options);
  // As Stop.
  ~Store() override;

  // The server's start number and the first incarnation that it may give; both are its own for
  // ever.
  uint64_t epoch() const { return manifest_->epoch(); }
  uint64_t first_incarnation() const { return manifest_->first_incarnation(); }

  // Brings back what there was, and begins to save. A factor that is damaged is quarantined;
  // RESOURCE_EXHAUSTED if the others do not fit the state budget. The registry must outlive Stop,
  // and its pool too; the store must outlive them.
  absl::Status Start(core::FactorRegistry* registry);
  // Saves what has changed, and stops.
  void Close();
  // Ends what it does of its own accord, as a crash would: nothing is stored any more, and no
  // factor hears of it. The second call does nothing.
  void Stop();

  // core::FactorStore
  absl::Status CheckWritable() const override { return manifest_->journal().CheckWritable(); }
  absl::Status RecordFactor(const core::FactorImage& image) override {
    return manifest_->RecordFactor(image);
  }
  absl::Status RecordDeletion(std::string_view name) override {
    return manifest_->RecordDeletion(name);
  }
  absl::Status RecordDamping(std::string_view name, std::optional<double> value) override {
    return manifest_->RecordDamping(name, value);
  }
  void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                     const core::StepRun& run, Done done) override {
    manifest_->RecordOutcome(factor, incarnation, ledger, run, std::move(done));
  }
  void LogStep(core::StepRecord record, Done done) override {
    manifest_->LogStep(std::move(record), std::move(done));
  }
  void StepEnded(const std::shared_ptr<core::Factor>& factor) override;
  void WantDurable(const std::string& factor) override;

  // --- What an operator asks for

  // How far Start is, and how it went.
  Recovery recovery() const { return recovery_.Get(); }
  struct Stats {
    SnapshotStats snapshots;  // none before Start and after Stop
    int64_t log_bytes = 0;    // of steps that no snapshot covers, about
    int64_t free_bytes = 0;   // of the disk
    bool writable = false;    // neither full nor failed
    bool failed = false;      // until the next start
  };
  Stats stats() const;

  // Saves what has changed and whose name starts with `prefix`.
  absl::Status Snapshot(const std::string& prefix, const Snapshotter::Told& told);
  // Ascending by number. NOT_FOUND for a name that is not stored.
  absl::StatusOr<std::vector<store::v1::Generation>> Generations(std::string_view name) const;
  // Makes a factor, damaged or not, what it was in a generation, under a new incarnation. NOT_FOUND
  // (GENERATION_NOT_FOUND); DATA_LOSS if that one is damaged too.
  absl::Status Restore(const std::string& name, uint64_t number);
  // Writes a factor as it stands to a file of its own, for the caller to remove.
  absl::StatusOr<std::string> Export(const std::string& name);
  // A path in transfers/ that nobody else uses.
  std::string NewTransfer();
  // Makes `name` (empty: the name in the file) what an exported file says, under a new incarnation.
  // INVALID_ARGUMENT for a file that is none, or is damaged; ALREADY_EXISTS unless there is no such
  // factor, or with `replace` one of the same specification.
  absl::StatusOr<std::string> Import(const std::string& path, std::string name, bool replace);
  // Saves what has changed, then makes backups/NAME a data directory of its own, of the same files.
  // Answers its path. ALREADY_EXISTS, INVALID_ARGUMENT for a name that is no file's.
  absl::StatusOr<std::string> Backup(const std::string& name);

 private:
  Store(Options options, int lock) : options_(std::move(options)), lock_(lock) {}
  std::string GenerationPath(uint64_t file) const;
  absl::Status RestoreFactor(const std::string& name, core::FactorRegistry& registry);
  absl::Status AdvanceByLog(const core::FactorImage& image, int64_t after, const core::Kind& kind,
                            core::Backend& backend, core::Matrix& state) const;
  absl::Status RestoreResults(const Manifest::Factor& stored, core::FactorImage& image) const;
  absl::Status PutSaved(const std::string& name, core::FactorImage image,
                        std::unique_ptr<core::Matrix> state, bool replace);
  absl::Status LinkTo(const std::string& path);
  absl::StatusOr<std::shared_ptr<Snapshotter>> OpenSnapshotter() const;

  const Options options_;
  const int lock_;  // the file of LOCK
  std::unique_ptr<Manifest> manifest_;
  RecoveryProgress recovery_;
  core::FactorRegistry* registry_ = nullptr;

  mutable core::Mutex mutex_;
  uint64_t last_transfer_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<Snapshotter> snapshotter_
      ABSL_GUARDED_BY(mutex_);  // null before Start and after Stop
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_STORE_H_
