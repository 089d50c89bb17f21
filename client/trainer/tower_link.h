// The wire between two towers, over which they add up their gradients. (fisherd is not an
// all-reduce; a real trainer has its own.)

#ifndef FISHERD_TRAINER_TOWER_LINK_H_
#define FISHERD_TRAINER_TOWER_LINK_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/trainer/network.h"

namespace fisherd::trainer {

// One tower's end of a stream socket. Both towers make the same calls in the same order; a call
// waits for the other tower's. UNAVAILABLE if that has gone, INTERNAL if it made another call. Not
// thread-safe.
class TowerLink {
 public:
  // Owns `socket`. `tower` is 0 at one end and 1 at the other.
  TowerLink(int socket, int tower) : socket_(socket), tower_(tower) {}
  ~TowerLink();
  TowerLink(const TowerLink&) = delete;
  TowerLink& operator=(const TowerLink&) = delete;

  int tower() const { return tower_; }

  // Replaces `layers` by tower 0's plus tower 1's: the same bits at both ends.
  absl::Status Sum(Layers& layers);

  // Sends `layers`, and returns the other tower's of the same shapes.
  absl::StatusOr<Layers> Exchange(const Layers& layers);

  // FAILED_PRECONDITION unless both towers came with the same value. Also serves to wait for each
  // other.
  absl::Status Agree(uint64_t value);

 private:
  // Sends `mine` and fills `theirs`, of the same size.
  absl::Status Swap(std::span<const std::byte> mine, std::span<std::byte> theirs);
  absl::Status Send(std::span<const std::byte> bytes);
  absl::Status Receive(std::span<std::byte> bytes);

  const int socket_;
  const int tower_;
};

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_TOWER_LINK_H_
