// What can go wrong with a disk, as statuses.

#ifndef FISHERD_SERVER_STORE_DISK_ERROR_H_
#define FISHERD_SERVER_STORE_DISK_ERROR_H_

#include <string>

#include "absl/status/status.h"

namespace fisherd::server {

// There was no space: RESOURCE_EXHAUSTED (DISK_FULL). It may be tried again.
absl::Status DiskFull(const std::string& what);
// Anything else: FAILED_PRECONDITION (DISK_FAILED), as nothing helps but to look at the disk.
absl::Status DiskFailed(const std::string& what);
// Of a system call that has just failed doing `what`.
absl::Status ErrnoStatus(const std::string& what);

// A sync has failed: what the kernel had not written it may have dropped, and no later sync would
// tell. Nothing is to be written from then on. DISK_FAILED, marked for IsSyncFailure.
absl::Status SyncFailed(const std::string& what);
bool IsSyncFailure(const absl::Status& status);

// What is read is not what was written: DATA_LOSS (STATE_DAMAGED).
absl::Status Damaged(const std::string& what);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_DISK_ERROR_H_
