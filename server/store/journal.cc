#include "server/store/journal.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <future>
#include <iterator>
#include <utility>

#include "core/clock.h"
#include "core/error.h"
#include "server/log.h"
#include "server/store/disk_error.h"
#include "server/store/failpoint.h"

namespace fisherd::server {
namespace {

// Of one batch; what is beyond it waits for the next.
constexpr size_t kBatchBytes = 64 << 20;

void Visit(const std::string& kind, const char* edge) { VisitFailpoint(kind + edge); }

int64_t FreeBytes(const std::string& directory) {
  struct statvfs info;
  if (statvfs(directory.c_str(), &info) != 0) return 0;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace

Journal::Journal(rocksdb::DB* database, Options options)
    : database_(database), options_(std::move(options)) {
  LookAtDisk();
  thread_ = std::thread([this] { Run(); });
}

Journal::~Journal() { Close(); }

void Journal::Close() {
  if (!thread_.joinable()) return;
  {
    core::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void Journal::Append(std::string kind, Fill fill, Done done) {
  absl::Status failed;
  {
    core::MutexLock lock(&mutex_);
    if (failed_.ok() && !stopping_) {
      waiting_.push_back({std::move(kind), std::move(fill), std::move(done)});
      changed_.NotifyAll();
      return;
    }
    failed = failed_.ok() ? core::MakeError(absl::StatusCode::kUnavailable,
                                            core::reason::kShuttingDown, "the server shuts down")
                          : failed_;
  }
  done(failed);
}

absl::Status Journal::Write(std::string kind, const Fill& fill) {
  std::promise<absl::Status> written;
  Append(std::move(kind), fill, [&](absl::Status status) { written.set_value(std::move(status)); });
  return written.get_future().get();
}

absl::Status Journal::CheckWritable() const {
  core::MutexLock lock(&mutex_);
  if (!failed_.ok()) return failed_;
  return below_reserve_ || options_.blocked()
             ? DiskFull("nothing is written until there is space again")
             : absl::OkStatus();
}

void Journal::Fail(const absl::Status& why) {
  core::MutexLock lock(&mutex_);
  if (!failed_.ok()) return;
  failed_ = why;
  LogError("nothing is written any more; reads go on: ", why.message());
}

void Journal::LookAtDisk() {
  const int64_t free = FreeBytes(options_.directory);
  const bool below = free < options_.reserve;
  core::MutexLock lock(&mutex_);
  free_bytes_ = free;
  if (std::exchange(below_reserve_, below) == below) return;
  if (below) {
    LogWarning("the disk of ", options_.directory, " has less than ", options_.reserve,
               " bytes left: writes are refused until it has more");
  } else {
    LogInfo("the disk of ", options_.directory, " has space again");
  }
}

// As many of those taken, from the first on, as make a batch.
size_t Journal::FillBatch() {
  batch_.Clear();
  size_t count = 0;
  while (count < taken_.size() && batch_.GetDataSize() < kBatchBytes) taken_[count++].fill(batch_);
  return count;
}

absl::Status Journal::WriteBatch() {
  rocksdb::WriteOptions options;
  options.sync = true;
  const rocksdb::Status status = database_->Write(options, &batch_);
  return status.ok() ? absl::OkStatus() : SyncFailed(status.ToString());
}

void Journal::Help() {
  absl::Status status;
  {
    core::MutexLock lock(&mutex_);
    if (!HasWork()) return;
    writing_ = true;
    std::move(waiting_.begin(), waiting_.end(), std::back_inserter(taken_));
    waiting_.clear();
    status = failed_;
  }
  const size_t count = FillBatch();
  for (size_t i = 0; i < count; ++i) Visit(taken_[i].kind, ".write");
  if (status.ok()) status = WriteBatch();
  if (!status.ok()) Fail(status);
  for (size_t i = 0; i < count; ++i) {
    if (status.ok()) Visit(taken_[i].kind, ".written");
    taken_[i].done(status);
  }
  taken_.erase(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(count));
  core::MutexLock lock(&mutex_);
  writing_ = false;
  if (HasWork() || stopping_) changed_.NotifyAll();
}

void Journal::Run() {
  for (;;) {
    bool has_work = false;
    {
      core::MutexLock lock(&mutex_);
      const absl::Time until = core::SteadyNow() + options_.look;
      while (!HasWork() && !(stopping_ && !writing_) && core::SteadyNow() < until) {
        changed_.WaitUntil(&mutex_, until);
      }
      has_work = HasWork();
      if (!has_work && stopping_ && !writing_) return;
    }
    if (has_work) {
      Help();
    } else {
      LookAtDisk();
    }
  }
}

}  // namespace fisherd::server
