#include "server/store/disk_error.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/error.h"

namespace fisherd::server {

absl::Status DiskFull(const std::string& what) {
  return core::MakeError(absl::StatusCode::kResourceExhausted,
                         absl::StrCat("the disk is full: ", what),
                         {.reason = std::string(core::reason::kDiskFull),
                          .metadata = {},
                          .retry_after = absl::Seconds(1)});
}

absl::Status DiskFailed(const std::string& what) {
  return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kDiskFailed, what);
}

absl::Status ErrnoStatus(const std::string& what) {
  const int error = errno;
  if (error == ENOSPC || error == EDQUOT) return DiskFull(what);
  return DiskFailed(absl::StrCat(what, ": ", std::strerror(error)));
}

absl::Status SyncFailed(const std::string& what) {
  return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kDiskFailed,
                         absl::StrCat("syncing failed, and is not tried again: ", what),
                         {{"sync", "failed"}});
}

bool IsSyncFailure(const absl::Status& status) {
  const auto details = core::GetErrorDetails(status);
  return details.has_value() && details->metadata.contains("sync");
}

absl::Status Damaged(const std::string& what) {
  return core::MakeError(absl::StatusCode::kDataLoss, core::reason::kStateDamaged, what);
}

}  // namespace fisherd::server
