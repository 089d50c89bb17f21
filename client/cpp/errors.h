// Making and converting errors; <fisherd/status.h> decodes them.

#ifndef FISHERD_CLIENT_ERRORS_H_
#define FISHERD_CLIENT_ERRORS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"

namespace grpc {
class Status;
}

namespace fisherd {

// An error that the library itself found, with the details that the server's errors have.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       const std::map<std::string, std::string>& metadata = {});

// A status of the wire; its details become payloads, by their type URLs.
absl::Status FromProto(const google::rpc::Status& status);

// How a call ended, with the details that its trailing metadata brought.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_ERRORS_H_
