// RocksDB's files, which wait for space.

#ifndef FISHERD_SERVER_STORE_PATIENT_FILE_SYSTEM_H_
#define FISHERD_SERVER_STORE_PATIENT_FILE_SYSTEM_H_

#include <atomic>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"

namespace fisherd::server {

// RocksDB 7.8 cannot go on with a file whose last write has failed (it aborts, where its assertions
// are on, as in Debian's). So a write that finds the disk full is tried again until it is done, and
// meanwhile nobody hears of it but by blocked(); and any other error of a write is told by the sync
// after it, as a kernel does that writes late. Thread-safe.
class PatientFileSystem : public rocksdb::FileSystemWrapper {
 public:
  PatientFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  const char* Name() const override { return "PatientFileSystem"; }
  // Appends only, as RocksDB does.
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;

  // A write waits for space.
  bool blocked() const { return waiting_ > 0; }

 private:
  friend class PatientFile;
  std::atomic<int> waiting_ = 0;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_PATIENT_FILE_SYSTEM_H_
