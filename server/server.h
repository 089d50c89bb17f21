// One fisherd: its parts, in order, around a gRPC server.

#ifndef FISHERD_SERVER_SERVER_H_
#define FISHERD_SERVER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/factor_registry.h"
#include "core/factor_store.h"
#include "grpcpp/channel.h"
#include "server/options.h"

namespace grpc {
class Server;
class ServerBuilder;
}  // namespace grpc

namespace fisherd::server {

class HttpServer;

// The largest message that is taken: a batch frame of 4 MiB and room for what stands around its
// payload (field numbers, a header with its list of tensors).
inline constexpr int kMaxMessageBytes = (4 << 20) + (64 << 10);

// What outlives a server, if it is not a data directory: for tests.
struct Durability {
  core::FactorStore* store = nullptr;  // outlives the server
  // Brings back the factors that there were, before the server listens.
  std::function<absl::Status(core::FactorRegistry&)> restore;
  // See core::RegistryOptions; 0: from the clock.
  uint64_t epoch = 0;
  uint64_t first_incarnation = 0;
};

// What HTTP/2 takes in of a stream that nobody reads.
inline constexpr int kStreamWindowBytes = 65535;

// How connections are set up: message sizes, flow control, keepalive.
void SetTransport(grpc::ServerBuilder& builder);

// Serves from Start on. Shutdown, and destruction, come from one thread.
class Server {
 public:
  // INVALID_ARGUMENT or UNAVAILABLE, if it cannot listen or write the port file; RESOURCE_EXHAUSTED
  // if what there was does not fit the state budget; errors of Store, for options.data_dir.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Options& options,
                                                       const Durability& durability = {});

  // As Shutdown without grace.
  ~Server();

  // Of the first HOST:PORT; 0 if there is none.
  int port() const { return port_; }
  // Of options.http; 0 if there is none.
  int http_port() const;
  std::string backend_name() const;

  // A channel without a socket.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // Reads the identities again. INVALID_ARGUMENT; what there was stays then.
  absl::Status Reload();

  // Health and /readyz say that it serves no more; update streams, watches and whatever waits for a
  // step end UNAVAILABLE (SHUTTING_DOWN); transfers and other calls have `grace` to end and are
  // then cancelled. Returns when all have. The second call does nothing.
  void Shutdown(absl::Duration grace);

 private:
  struct Rooms;  // where calls are served
  explicit Server(std::unique_ptr<Rooms> rooms);
  absl::Status ListenForHttp(const Options& options);
  absl::Status Listen(const Options& options);
  absl::Status Announce(const Options& options, const std::vector<int>& ports);

  const std::unique_ptr<Rooms> rooms_;
  std::unique_ptr<HttpServer> http_server_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> grpc_server_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SERVER_H_
