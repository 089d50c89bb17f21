// Hands memory to a server on the same machine.

#ifndef FISHERD_CLIENT_SHARED_MEMORY_DOOR_H_
#define FISHERD_CLIENT_SHARED_MEMORY_DOOR_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace fisherd {

// Where a server announces its door, in the initial metadata of an update stream: 16 bytes that
// stand for it, and the path of its socket.
inline constexpr char kSharedMemoryKey[] = "fisherd-shared-memory-bin";

// Whether a peer, as gRPC names it, is on this machine as far as that can be seen.
bool IsLocalPeer(std::string_view peer);

// A region that the server has mapped, as long as this lives and the server does. Used by one
// thread at a time.
class SharedMemoryDoor {
 public:
  // Hands in `fd`. Waits for the server, at most `timeout` for each of its words. UNAVAILABLE if
  // nobody is there, or another server than that which has announced it; else what it has said.
  static absl::StatusOr<std::unique_ptr<SharedMemoryDoor>> Enter(std::string_view announcement,
                                                                 int fd, absl::Duration timeout);
  ~SharedMemoryDoor();
  SharedMemoryDoor(const SharedMemoryDoor&) = delete;
  SharedMemoryDoor& operator=(const SharedMemoryDoor&) = delete;

  // SharedBytes.region.
  const std::string& token() const { return token_; }
  const std::string& announcement() const { return announcement_; }
  // The server has it still.
  bool stands() const;

 private:
  SharedMemoryDoor(std::string_view announcement, int socket)
      : announcement_(announcement), socket_(socket) {}
  absl::Status Connect(absl::Duration timeout);
  absl::Status Greet(int fd);
  absl::Status ReadAnswer();

  const std::string announcement_;
  const int socket_;
  std::string token_;
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_SHARED_MEMORY_DOOR_H_
