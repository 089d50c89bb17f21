// Addresses that are files: "unix:PATH".

#ifndef FISHERD_SERVER_UNIX_SOCKET_H_
#define FISHERD_SERVER_UNIX_SOCKET_H_

#include <sys/un.h>

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace fisherd::server {

// What the system takes, in bytes.
inline constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

// The path of "unix:PATH" or "unix:///PATH"; nullopt for any other address.
std::optional<std::string> SocketPath(absl::string_view address);

// UNAVAILABLE if somebody listens there, or the file is not a socket. A socket that nobody listens
// at any more is in nobody's way: gRPC replaces it, and removes its own when it shuts down.
absl::Status CheckSocketIsFree(const std::string& path);

// Lets the owner and the group connect: mode 0660.
absl::Status SetSocketMode(const std::string& path);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_UNIX_SOCKET_H_
