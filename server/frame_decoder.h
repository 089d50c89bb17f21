// A message of the update stream, as it comes from the network: in pieces, nearly all of it payload
// that nobody may copy. The decoder takes the payload (BatchRows.data) out by its position and lets
// protobuf parse the rest, so that every rule of the wire format (order, unknown fields, repeated
// ones) is protobuf's own.

#ifndef FISHERD_SERVER_FRAME_DECODER_H_
#define FISHERD_SERVER_FRAME_DECODER_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd::server {

// The most bytes that a message may have beside its payload: the header of 4096 sources needs a
// third of it, and parsed it stays small.
inline constexpr int64_t kMaxControlBytes = 256 << 10;

struct UpdateFrame {
  v1::UpdateRequest message;              // `rows.data` is empty, and is in `payload` instead
  std::vector<std::string_view> payload;  // pieces of the slices, in order; none is empty
  int64_t payload_bytes = 0;
};

// Decodes the message that the slices make up when put together; they may be cut anywhere. The
// result refers to them. INVALID_ARGUMENT (MALFORMED_FRAME), with what is wrong at which byte.
absl::StatusOr<UpdateFrame> DecodeUpdate(std::span<const std::string_view> slices);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FRAME_DECODER_H_
