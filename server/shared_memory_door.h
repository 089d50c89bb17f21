// Where trainers on this machine hand in the memory that they share with the server.

#ifndef FISHERD_SERVER_SHARED_MEMORY_DOOR_H_
#define FISHERD_SERVER_SHARED_MEMORY_DOOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/shared_regions.h"

namespace fisherd::server {

// A Unix socket beside those of gRPC, which passes file descriptors. One connection per region:
//
//   client:  "fisherd shared memory 1\n", and with it one file descriptor (SCM_RIGHTS)
//   server:  "ok SERVER TOKEN\n", each 32 hexadecimal digits; or "error WORDS\n", and the end
//
// SERVER is that of announcement(): without it the client has come to another server's door. TOKEN
// names the region in SharedBytes.region for as long as the connection stands; the client says
// nothing more.
//
// A thread of its own polls, and no peer can make it wait: each has a moment to say its words,
// there is a bound on how many there are, and on the bytes of their memory. Memory is mapped and
// the file descriptor closed at once.
class SharedMemoryDoor {
 public:
  struct Options {
    std::string path;              // mode 0660
    int64_t limit = 0;             // bytes of all regions together
    size_t max_connections = 256;  // more are turned away
    absl::Duration handshake_timeout = absl::Seconds(5);
  };

  // UNAVAILABLE if it cannot listen there.
  static absl::StatusOr<std::unique_ptr<SharedMemoryDoor>> Open(const Options& options);
  // Closes it, and forgets all regions.
  ~SharedMemoryDoor();

  // What trainers are told, in the initial metadata of their streams: 16 bytes that stand for this
  // door, and its absolute path.
  const std::string& announcement() const { return announcement_; }
  const SharedRegions& regions() const { return regions_; }

 private:
  struct Peer {
    int fd = -1;
    absl::Time deadline = absl::InfiniteFuture();  // for what it has to say
    std::string said = {};
    int memory = -1;         // that it has handed in
    std::string token = {};  // of its region: it has nothing more to say
  };

  explicit SharedMemoryDoor(const Options& options);
  absl::Status Listen();
  void Run();
  // Lets in whoever waits. False if the system has no file descriptors for it.
  bool Accept();
  // Reads what a peer has said; false if it is to go.
  bool Hear(Peer& peer);
  // Takes what `said` and `memory` are; false if the peer is to go.
  bool Answer(Peer& peer);
  void Close(Peer& peer);

  const Options options_;
  std::string announcement_;
  SharedRegions regions_;
  int listener_ = -1;
  int stop_ = -1;            // an eventfd
  std::vector<Peer> peers_;  // the thread's
  std::thread thread_;
};

// The key of announcement() in the metadata.
inline constexpr char kSharedMemoryKey[] = "fisherd-shared-memory-bin";

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_SHARED_MEMORY_DOOR_H_
