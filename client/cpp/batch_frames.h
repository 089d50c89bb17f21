// One batch as the messages that carry it: header rows* end.

#ifndef FISHERD_CLIENT_BATCH_FRAMES_H_
#define FISHERD_CLIENT_BATCH_FRAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd {

// No message is larger (update.proto).
inline constexpr int64_t kMaxMessage = int64_t{4} << 20;
// UpdateStreamOptions::max_frame at most, so that a header fits beside a frame.
inline constexpr int64_t kLargestMaxFrame = int64_t{3} << 20;

// What names a batch.
struct BatchIdentity {
  std::string factor;
  uint64_t incarnation = 0;
  int64_t step = 0;
  int tower = 0;
};

// Views the batch's matrices. Not thread-safe.
class BatchFrames {
 public:
  // INVALID_ARGUMENT (BAD_ARGUMENT) if the tensors cannot be cut by rows: there are none, their
  // rows differ, or a row exceeds a message. What the factor wants of them, the server says.
  static absl::StatusOr<BatchFrames> Make(const BatchIdentity& identity, const Batch& batch,
                                          const StepOptions& options, int64_t max_frame);

  const v1::BatchHeader& header() const { return header_; }

  // The next message; false when the batch is whole. The same `request` is best used for all.
  bool Next(v1::UpdateRequest& request);

 private:
  BatchFrames() = default;

  v1::BatchHeader header_;
  std::vector<MatrixView> tensors_;  // as header_.tensors
  int64_t rows_per_frame_ = 0;
  int64_t next_row_ = 0;
  bool header_sent_ = false;
  bool header_shares_ = false;  // its message has room for a frame
};

// The digest of a batch, 16 bytes: XXH3-128 in its canonical form (big-endian) of
//
//   factor        length, bytes
//   incarnation, step, tower, rows, form, label
//   decay, weight, gradient_scale          each: 0, or 1 and the bits of the binary64
//   number of tensors, and of each         role, source, dtype, rank, sizes
//   elements of each tensor                row-major, little-endian
//
// with all numbers as 64 bits, little-endian. It does not depend on how the batch is cut.
std::string BatchDigest(const v1::BatchHeader& header, const std::vector<MatrixView>& tensors);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_BATCH_FRAMES_H_
