#include "server/store/patient_file_system.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(50);

rocksdb::IOStatus Failed(const std::string& what) {
  return rocksdb::IOStatus::IOError(what, std::strerror(errno));
}

bool IsFull() { return errno == ENOSPC || errno == EDQUOT; }

}  // namespace

// Written by one thread at a time.
class PatientFile : public rocksdb::FSWritableFile {
 public:
  PatientFile(PatientFileSystem* owner, std::string path, int file)
      : owner_(*owner), path_(std::move(path)), file_(file) {}
  ~PatientFile() override {
    if (file_ >= 0) close(file_);
  }

  using FSWritableFile::Append;
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions&,
                           rocksdb::IODebugContext*) override {
    const char* bytes = data.data();
    size_t left = data.size();
    bool waits = false;
    while (left > 0 && error_.ok()) {
      const ssize_t written = pwrite(file_, bytes, left, static_cast<off_t>(size_));
      if (written > 0) {
        bytes += written;
        left -= static_cast<size_t>(written);
        size_ += static_cast<uint64_t>(written);
      } else if (written == 0 || IsFull()) {
        SetWaits(true, waits);
        absl::SleepFor(kLook);
      } else if (errno != EINTR) {
        error_ = Failed("cannot write " + path_);
      }
    }
    SetWaits(false, waits);
    size_ += left;
    return rocksdb::IOStatus::OK();
  }

  rocksdb::IOStatus Truncate(uint64_t size, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override {
    if (ftruncate(file_, static_cast<off_t>(size)) != 0) return Failed("cannot cut " + path_);
    size_ = size;
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Close(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    if (close(std::exchange(file_, -1)) != 0) return Failed("cannot close " + path_);
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Flush(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    if (!error_.ok()) return error_;
    if (fdatasync(file_) != 0) return Failed("cannot sync " + path_);
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    if (!error_.ok()) return error_;
    if (fsync(file_) != 0) return Failed("cannot sync " + path_);
    return rocksdb::IOStatus::OK();
  }
  bool IsSyncThreadSafe() const override { return true; }
  uint64_t GetFileSize(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return size_;
  }

 private:
  void SetWaits(bool now, bool& waits) {
    if (std::exchange(waits, now) == now) return;
    owner_.waiting_ += now ? 1 : -1;
    if (now) {
      LogWarning("the disk is full: ", path_, " waits for space");
    } else {
      LogInfo("the disk has space again: ", path_, " has been written");
    }
  }

  PatientFileSystem& owner_;
  const std::string path_;
  int file_;
  uint64_t size_ = 0;
  rocksdb::IOStatus error_;  // of a write, for the next sync
};

rocksdb::IOStatus PatientFileSystem::NewWritableFile(const std::string& path,
                                                     const rocksdb::FileOptions&,
                                                     std::unique_ptr<rocksdb::FSWritableFile>* file,
                                                     rocksdb::IODebugContext*) {
  int opened = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  while (opened < 0 && (IsFull() || errno == EINTR)) {
    ++waiting_;
    absl::SleepFor(kLook);
    opened = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    --waiting_;
  }
  if (opened < 0) return Failed("cannot make " + path);
  *file = std::make_unique<PatientFile>(this, path, opened);
  return rocksdb::IOStatus::OK();
}

}  // namespace fisherd::server
