// Errors are absl::Status with a reason that programs can tell apart and metadata that names what
// is meant. The server turns them into google.rpc.Status with ErrorInfo (SPEC §6).

#ifndef FISHERD_CORE_ERROR_H_
#define FISHERD_CORE_ERROR_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace fisherd::core {

// Reasons, as they stand in ErrorInfo. Part of the public contract: never renamed.
namespace reason {
inline constexpr std::string_view kBadArgument = "BAD_ARGUMENT";
inline constexpr std::string_view kBadName = "BAD_NAME";
inline constexpr std::string_view kNonFiniteInput = "NON_FINITE_INPUT";
inline constexpr std::string_view kCrcMismatch = "CRC_MISMATCH";
inline constexpr std::string_view kMalformedFrame = "MALFORMED_FRAME";
inline constexpr std::string_view kIdentityReused = "IDENTITY_REUSED";
inline constexpr std::string_view kStepParametersDiffer = "STEP_PARAMETERS_DIFFER";
inline constexpr std::string_view kFactorNotFound = "FACTOR_NOT_FOUND";
inline constexpr std::string_view kDampingNotFound = "DAMPING_NOT_FOUND";
inline constexpr std::string_view kRegistrationNotFound = "REGISTRATION_NOT_FOUND";
inline constexpr std::string_view kSpecDiffers = "SPEC_DIFFERS";
inline constexpr std::string_view kOldIncarnation = "OLD_INCARNATION";
inline constexpr std::string_view kTowerClaimed = "TOWER_CLAIMED";
inline constexpr std::string_view kTowerNotOpen = "TOWER_NOT_OPEN";
inline constexpr std::string_view kNonFiniteResult = "NON_FINITE_RESULT";
inline constexpr std::string_view kForgotten = "FORGOTTEN";
inline constexpr std::string_view kStepFailed = "STEP_FAILED";
inline constexpr std::string_view kStepLate = "STEP_LATE";
inline constexpr std::string_view kStreamSuperseded = "STREAM_SUPERSEDED";
inline constexpr std::string_view kOutOfRange = "OUT_OF_RANGE";
inline constexpr std::string_view kBeyondWindow = "BEYOND_WINDOW";
inline constexpr std::string_view kStepOutOfOrder = "STEP_OUT_OF_ORDER";
inline constexpr std::string_view kStateBudget = "STATE_BUDGET";
inline constexpr std::string_view kBatchBudget = "BATCH_BUDGET";
inline constexpr std::string_view kTooManyStreams = "TOO_MANY_STREAMS";
inline constexpr std::string_view kReadStalled = "READ_STALLED";
inline constexpr std::string_view kRegionUnknown = "REGION_UNKNOWN";
inline constexpr std::string_view kDiskFull = "DISK_FULL";
inline constexpr std::string_view kDiskFailed = "DISK_FAILED";
inline constexpr std::string_view kNoDevice = "NO_DEVICE";
inline constexpr std::string_view kDeviceLost = "DEVICE_LOST";
inline constexpr std::string_view kStateDamaged = "STATE_DAMAGED";
inline constexpr std::string_view kGenerationNotFound = "GENERATION_NOT_FOUND";
inline constexpr std::string_view kNoDataDirectory = "NO_DATA_DIRECTORY";
inline constexpr std::string_view kUnauthenticated = "UNAUTHENTICATED";
inline constexpr std::string_view kPermissionDenied = "PERMISSION_DENIED";
inline constexpr std::string_view kQuota = "QUOTA";
inline constexpr std::string_view kShuttingDown = "SHUTTING_DOWN";
}  // namespace reason

// What a status of this project carries beside code and message.
struct ErrorDetails {
  std::string reason;
  std::map<std::string, std::string> metadata;  // e.g. {"factor", "mlp/0"}, {"field", "decay"}
  std::optional<absl::Duration> retry_after;    // when trying again may help
};

// A status with details. `message` is a sentence for the caller: what was wrong, the offending
// value, what was expected.
absl::Status MakeError(absl::StatusCode code, std::string_view message, ErrorDetails details);
absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       std::map<std::string, std::string> metadata = {});

// INVALID_ARGUMENT (BAD_ARGUMENT) about one field of a request.
absl::Status BadArgument(std::string_view field, std::string_view message);

// The details of a status made by MakeError; nullopt for any other.
std::optional<ErrorDetails> GetErrorDetails(const absl::Status& status);

// `status` with a metadata entry added, unless it has that key already. One without details, OK for
// instance, stays as it is.
absl::Status WithMetadata(absl::Status status, std::string_view key, std::string_view value);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_ERROR_H_
