// Saves factors in the background, while they are updated and read.

#ifndef FISHERD_SERVER_STORE_SNAPSHOTTER_H_
#define FISHERD_SERVER_STORE_SNAPSHOTTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "server/store/manifest.h"
#include "server/store/tensor_file.h"

namespace fisherd::server {

// How far a snapshot is.
struct SnapshotProgress {
  int64_t factors_done = 0;
  int64_t factors = 0;  // that have changed since they were saved
  int64_t bytes_done = 0;
  int64_t bytes = 0;
};

// What has been saved since the start.
struct SnapshotStats {
  int64_t snapshots = 0;  // that saved something, and all that they were to
  int64_t failures = 0;
  int64_t bytes = 0;  // of states and results
  absl::Duration time;
  absl::Time last_success = absl::InfinitePast();  // by the date
};

// The factors of a data directory as tensor files: what goes into one, and under which names.
std::string CovarianceName(std::string_view factor);
std::string ResultName(std::string_view factor, size_t index);
std::string FactorMetadataName(std::string_view factor);

// One factor, to be written: its image, and what the manifest will say of it.
struct SavedFactor {
  explicit SavedFactor(core::FactorImage taken);
  int64_t bytes() const;
  // Takes the places of its tensors.
  void TakePlaces(std::vector<store::v1::Place>::const_iterator& place);

  core::FactorImage image;
  store::v1::Generation generation;
};

// Writes factors to a file; where their tensors are, in the order of TakePlaces. As
// TensorFileWriter::Write.
absl::StatusOr<std::vector<store::v1::Place>> WriteFactors(const std::string& directory,
                                                           const std::string& name,
                                                           std::span<const SavedFactor> factors);

// Saves the factors that have changed: when it is told to, and, by a thread of its own, every so
// often, when a factor is wanted, and when the log of steps has grown. Small factors share a file,
// and wait for one commit; of a large one only its own version is kept meanwhile. Thread-safe.
class Snapshotter {
 public:
  struct Options {
    std::string directory;  // of the files
    absl::Duration interval = absl::Seconds(60);
    int64_t log_limit = int64_t{1} << 30;  // bytes of logged steps after which it does not wait
  };
  // Both outlive this. Begins at once; `registry` has everything that there was.
  Snapshotter(Manifest* manifest, core::FactorRegistry* registry, Options options);
  // Waits for what the thread is doing.
  ~Snapshotter();

  // Has changed since it was saved.
  void MarkChanged(const std::string& factor);
  // Saves it soon.
  void Want(const std::string& factor);
  // Saves all that have changed and whose names start with `prefix`. `told` hears of the progress.
  // Errors as in disk_error.h; what could be saved has been.
  using Told = std::function<void(const SnapshotProgress&)>;
  absl::Status Save(const std::string& prefix, const Told& told);
  // Runs `job` while nothing is saved or removed.
  absl::Status Run(const std::function<absl::Status()>& job);
  SnapshotStats stats() const {
    core::MutexLock lock(&mutex_);
    return stats_;
  }

  // Removes files that no generation is in. While nothing is saved.
  static void RemoveUnreferenced(const Manifest& manifest, const std::string& directory);

 private:
  void Loop();
  std::vector<std::string> TakeChanged(std::string_view prefix);
  absl::Status SaveFactors(const std::vector<std::string>& names, const Told& told)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(work_mutex_);
  void Count(const absl::Status& saved, int64_t bytes, absl::Time began)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SaveGroup(std::vector<SavedFactor>& group)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(work_mutex_);

  Manifest& manifest_;
  core::FactorRegistry& registry_;
  const Options options_;

  core::Mutex work_mutex_;  // held by who saves or removes; before mutex_
  mutable core::Mutex mutex_;
  core::CondVar changed_;
  SnapshotStats stats_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string, std::less<>> changed_factors_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string, std::less<>> wanted_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Files that no generation is in any more: removed once the caller has been answered.
  bool files_to_remove_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_SNAPSHOTTER_H_
