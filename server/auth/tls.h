// TLS at the server's ports.

#ifndef FISHERD_SERVER_AUTH_TLS_H_
#define FISHERD_SERVER_AUTH_TLS_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class ServerCredentials;
}  // namespace grpc

namespace fisherd::server {

// PEM files. They are read again within kTlsRefresh after they have changed.
struct TlsFiles {
  std::string certificate;  // the server's, then those between it and a root
  std::string key;
  std::string client_ca;  // empty: no certificates are asked of clients
};
inline constexpr absl::Duration kTlsRefresh = absl::Seconds(5);

// TLS 1.2 or later; with client_ca, for clients whose certificates it has signed. INVALID_ARGUMENT
// if a file cannot be read, or certificate and key do not belong together.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsCredentials(const TlsFiles& files);

// When the first certificate of a file ends; nullopt if it cannot be read.
std::optional<absl::Time> ExpiryOf(const std::string& certificate);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_AUTH_TLS_H_
