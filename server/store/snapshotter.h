// Saves factors in the background, while they are updated and read.

#ifndef FISHERD_SERVER_STORE_SNAPSHOTTER_H_
#define FISHERD_SERVER_STORE_SNAPSHOTTER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
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
  // Adds its tensors, its metadata; and takes the places of the former, in the same order.
  void AddTo(std::vector<NamedMatrix>& tensors, std::map<std::string, std::string>& metadata) const;
  void TakePlaces(std::vector<store::v1::Place>::const_iterator& place);

  core::FactorImage image;
  store::v1::Generation generation;
};

// A thread that saves the factors that have changed: every so often, when it is asked, and when the
// log of steps has grown. Small factors share a file, and wait for one commit; of a large one only
// its own version is kept meanwhile. Thread-safe.
class Snapshotter {
 public:
  struct Options {
    std::string directory;  // of the files
    absl::Duration interval = absl::Seconds(60);
    int64_t log_limit = int64_t{1} << 30;  // bytes of logged steps after which it does not wait
  };
  // Both outlive this. Begins at once; `registry` has everything that there was.
  Snapshotter(Manifest* manifest, core::FactorRegistry* registry, Options options);
  // Waits for the job that is being done, and leaves the others.
  ~Snapshotter();

  // Has changed since it was saved.
  void MarkChanged(const std::string& factor);
  // Saves it soon.
  void Want(const std::string& factor);
  // Saves all that have changed and whose names start with `prefix`; waits. `told` hears of the
  // progress, from the thread. Errors as in disk_error.h; what could be saved has been.
  using Told = std::function<void(const SnapshotProgress&)>;
  absl::Status Save(const std::string& prefix, const Told& told);
  // Runs `job` on the thread, while nothing is saved or removed; waits.
  absl::Status Run(const std::function<absl::Status()>& job);
  SnapshotStats stats() const {
    core::MutexLock lock(&mutex_);
    return stats_;
  }

  // Removes files that no generation is in. For the thread, and before it begins.
  static void RemoveUnreferenced(const Manifest& manifest, const std::string& directory);

 private:
  void Loop();
  std::vector<std::string> TakeChanged(std::string_view prefix);
  absl::Status SaveFactors(const std::vector<std::string>& names, const Told& told);
  void Count(const absl::Status& saved, int64_t bytes, absl::Time began)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SaveGroup(std::vector<SavedFactor>& group);
  absl::StatusOr<core::FactorImage> ImageOf(const std::string& name) const;

  Manifest& manifest_;
  core::FactorRegistry& registry_;
  const Options options_;

  mutable core::Mutex mutex_;
  core::CondVar changed_;
  SnapshotStats stats_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string, std::less<>> changed_factors_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string, std::less<>> wanted_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool files_to_remove_ = false;  // the thread's; done once the caller has been answered
  std::thread thread_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_SNAPSHOTTER_H_
