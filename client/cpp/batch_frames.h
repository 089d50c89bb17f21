// One batch as the messages that carry it: header rows* end.

#ifndef FISHERD_CLIENT_BATCH_FRAMES_H_
#define FISHERD_CLIENT_BATCH_FRAMES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/buffer_pool.h"
#include "client/cpp/mutex.h"
#include "client/cpp/shared_memory.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd {

// No message is larger (update.proto).
inline constexpr int64_t kMaxMessage = int64_t{4} << 20;
// UpdateStreamOptions::max_frame at most, so that a header fits beside a frame.
inline constexpr int64_t kLargestMaxFrame = int64_t{3} << 20;

// Of batches in shared memory at least: what is smaller gains nothing by it.
inline constexpr int64_t kLeastSharedBytes = int64_t{32} << 10;

// What names a batch.
struct BatchIdentity {
  std::string factor;
  uint64_t incarnation = 0;
  int64_t step = 0;
  int tower = 0;
};

// An error about the batch, with what it is about; step 0: not of one step.
absl::Status BatchError(absl::StatusCode code, std::string_view reason,
                        const BatchIdentity& identity, const std::string& message,
                        std::map<std::string, std::string> metadata = {});

// The tensors that are to travel. Views.
struct BatchTensors {
  v1::BatchForm form = v1::BATCH_FORM_RAW;
  int64_t rows = 0;                     // N
  std::optional<double> examples = {};  // of a contribution: what stands for N, if not N itself
  std::vector<MatrixView> tensors = {};
  std::vector<v1::TensorSpec> specs = {};

  int64_t frame_rows() const { return tensors[0].rows(); }
  int64_t row_bytes() const;
  int64_t bytes() const { return frame_rows() * row_bytes(); }
};

// The batch as the trainer has it. INVALID_ARGUMENT (BAD_ARGUMENT) if it cannot be cut by rows:
// there are no tensors, or their rows differ. What the factor wants of them, the server says.
absl::StatusOr<BatchTensors> RawTensors(const BatchIdentity& identity, const Batch& batch);

// One contribution [H, O] of N rows, in place of the batch.
BatchTensors ContributionTensors(const MatrixView& contribution, int64_t rows,
                                 std::optional<double> examples);

// The messages that carry a batch, in their order, with the elements, or with their places in a
// block of shared memory. Not to be changed, but filled: a large batch is on its way while the
// elements of its last messages are still being copied.
struct EncodedBatch {
  explicit EncodedBatch(std::shared_ptr<BufferPool> pool = nullptr) : pool(std::move(pool)) {}
  ~EncodedBatch();  // returns the elements' memory
  EncodedBatch(const EncodedBatch&) = delete;
  EncodedBatch& operator=(const EncodedBatch&) = delete;

  // A message, once it has its elements. Thread-safe, beside FillBatch.
  const v1::UpdateRequest& Filled(size_t index) const ABSL_LOCKS_EXCLUDED(mutex);

  // A message of a batch that has a block, as it may be sent to a server that has mapped it as
  // `region`; or with the elements, if that is empty.
  v1::UpdateRequest Addressed(const v1::UpdateRequest& message, std::string_view region) const;

  const std::shared_ptr<BufferPool> pool;
  std::unique_ptr<SharedBlock> block;  // null: the messages have the elements
  std::vector<v1::UpdateRequest> messages;
  int64_t bytes = 0;  // of elements
  v1::BatchForm form = v1::BATCH_FORM_RAW;

  mutable Mutex mutex;
  mutable CondVar changed;
  size_t filled ABSL_GUARDED_BY(mutex) = 0;  // messages
};

// All of a batch but its elements, for which it takes shared memory, if there is any and has room
// for a batch of that size; else FillBatch takes memory of `pool`. INVALID_ARGUMENT (BAD_ARGUMENT)
// if a row exceeds a message.
absl::StatusOr<std::shared_ptr<EncodedBatch>> BeginBatch(
    const BatchIdentity& identity, const BatchTensors& batch, const StepOptions& options,
    int64_t max_frame, std::shared_ptr<BufferPool> pool, SharedMemory* shared = nullptr);

// Copies the elements, as they are: message after message. Once, with the tensors that it was begun
// with.
void FillBatch(const BatchTensors& batch, EncodedBatch& encoded);

// The one and the other.
absl::StatusOr<std::shared_ptr<const EncodedBatch>> EncodeBatch(
    const BatchIdentity& identity, const BatchTensors& batch, const StepOptions& options,
    int64_t max_frame, std::shared_ptr<BufferPool> pool, SharedMemory* shared = nullptr);

// The digest of a batch, 16 bytes: XXH3-128 in its canonical form (big-endian) of
//
//   factor        length, bytes
//   incarnation, step, tower, rows, form, label
//   decay, weight, gradient_scale          each: 0, or 1 and the bits of the binary64
//   examples                               likewise, but only of a CONTRIBUTION
//   number of tensors, and of each         role, source, dtype, rank, sizes
//   elements of each tensor                row-major, little-endian
//
// with all numbers as 64 bits, little-endian. It does not depend on how the batch is cut.
std::string BatchDigest(const v1::BatchHeader& header, const std::vector<MatrixView>& tensors);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_BATCH_FRAMES_H_
