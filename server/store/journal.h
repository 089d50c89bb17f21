// The one way into the manifest: batches of several writers, synced together.

#ifndef FISHERD_SERVER_STORE_JOURNAL_H_
#define FISHERD_SERVER_STORE_JOURNAL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/mutex.h"
#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"

namespace fisherd::server {

// Thread-safe. What is appended reaches the disk in its order. A thread writes what has come while
// the last batch was being synced, in one batch.
//
// When the disk is full, what has come waits until there is space again. When writing fails for
// another reason nothing is written any more: what waits and what comes is answered with
// DISK_FAILED.
class Journal {
 public:
  struct Options {
    std::string directory;                          // on the disk in question
    int64_t reserve = 0;                            // bytes of it below which it counts as full
    absl::Duration look = absl::Milliseconds(200);  // how often to see how much is left
    std::function<bool()> blocked = [] { return false; };  // a write waits for space
  };
  // The database outlives this.
  Journal(rocksdb::DB* database, Options options);
  // As Close.
  ~Journal();
  // Writes what has come, and refuses what comes from now on. While a write waits for space this
  // waits too.
  void Close();

  // Adds to a batch; called by who writes it.
  using Fill = std::function<void(rocksdb::WriteBatch&)>;
  using Done = std::function<void(absl::Status)>;
  // `kind` names the failpoints around it: "KIND.write" and "KIND.written". `done` is called by who
  // writes it: the thread, or one that helps.
  void Append(std::string kind, Fill fill, Done done);
  // Writes what waits on this thread, if nobody is at it: sooner than the journal's own wakes. For
  // callers that nothing which is `done` could wait for.
  void Help();
  // The same, and waits.
  absl::Status Write(std::string kind, const Fill& fill);

  // See core::FactorStore.
  absl::Status CheckWritable() const;
  bool failed() const {
    core::MutexLock lock(&mutex_);
    return !failed_.ok();
  }
  // Bytes that were left of the disk when it was last looked at.
  int64_t free_bytes() const {
    core::MutexLock lock(&mutex_);
    return free_bytes_;
  }
  // Writing has failed for good, here or elsewhere in the data directory.
  void Fail(const absl::Status& why);

 private:
  struct Entry {
    std::string kind;
    Fill fill;
    Done done;
  };
  void Run();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !writing_ && !(waiting_.empty() && taken_.empty());
  }
  size_t FillBatch();
  absl::Status WriteBatch();
  void LookAtDisk();

  rocksdb::DB* const database_;
  const Options options_;

  mutable core::Mutex mutex_;
  core::CondVar changed_;
  std::deque<Entry> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;  // someone is
  // Of who writes, or else of who holds the mutex.
  std::deque<Entry> taken_;
  rocksdb::WriteBatch batch_;  // keeps its memory
  int64_t free_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool below_reserve_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failed_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // joined by Close, which comes from one thread
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_JOURNAL_H_
