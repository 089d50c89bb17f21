// Feeding covariance updates: one stream per trainer process, one writer per factor on it.
//
//   fisherd::UpdateStream stream = client.OpenUpdates();
//   absl::StatusOr<fisherd::UpdateWriter> writer = stream.Open("mlp/0", /*tower=*/0);
//   absl::StatusOr<int64_t> step =
//       writer->Write({.inputs = a, .outputs_grads = {g}}, {.decay = 0.95});
//   absl::Status counted = writer->WaitEnded(*step);

#ifndef FISHERD_UPDATE_STREAM_H_
#define FISHERD_UPDATE_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fisherd/matrix.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd {

// One tower's part of one step. Views only: the matrices must live until Write returns. Each tensor
// travels in its own type.
struct Batch {
  // [N, I], without a column of ones.
  MatrixView inputs = {};
  // One [N, O] per source: gradients of the examples' own losses, not of the batch's mean.
  std::vector<MatrixView> outputs_grads = {};
  // Optional, [N]: finite, not negative, with a positive sum, which then stands for N.
  MatrixView row_weights = {};
};

// How a step enters the moving average:  var ← decay·var + weight·C. All towers must send the same.
struct StepOptions {
  double decay = 0.95;                        // in [0, 1]
  std::optional<double> weight = {};          // 1 − decay if absent
  std::optional<double> gradient_scale = {};  // multiplies the gradients before they are squared
  uint64_t label = 0;                         // the trainer's own step number
};

struct UpdateStreamOptions {
  // Bytes of elements per message at most, if a row is not larger. From 1 to 3 MiB.
  int64_t max_frame = int64_t{1} << 20;
  // Bytes of elements, of all writers, that are kept for the case that they must be sent again. At
  // least one round's: a batch of each factor. From half of it on the server is asked to save.
  int64_t max_buffered_bytes = int64_t{1} << 30;
  // Bytes of memory that are shared with a server on the same machine, if it offers that
  // (fisherd --shared-memory=PATH): batches of 32 KiB and more lie there and do not travel, as long
  // as there is room. What cannot be shared travels, without a word; UpdateStats says what was
  // shared. The system gives the memory as it is needed, and has it back with the stream. 0: none.
  int64_t shared_memory = int64_t{256} << 20;
  // How batches travel: as they are (RAW), or reduced to their covariances by this process
  // (CONTRIBUTION). UNSPECIFIED takes what has fewer bytes, batch by batch.
  v1::BatchForm form = v1::BATCH_FORM_UNSPECIFIED;
  // A stream that is cut is opened again after a delay that doubles from the first to the second,
  // give or take; and ends with the last error when that has not helped for reconnect_timeout.
  absl::Duration first_reconnect_delay = absl::Milliseconds(100);
  absl::Duration max_reconnect_delay = absl::Seconds(10);
  absl::Duration reconnect_timeout = absl::InfiniteDuration();
};

// What a writer has done since it was opened.
struct UpdateStats {
  int64_t raw_batches = 0;  // written, in either form
  int64_t raw_bytes = 0;
  int64_t contribution_batches = 0;
  int64_t contribution_bytes = 0;
  int64_t shared_batches = 0;  // sent, or sent again, by shared memory
  int64_t resent_batches = 0;  // once more, after a cut or a hold
  int64_t reconnects = 0;      // streams on which the tower was opened anew
};

struct OpenOptions {
  // Takes the tower from another process that still holds it.
  bool take_over = false;
  // How long to wait for the server's answer.
  absl::Duration timeout = absl::Seconds(30);
};

// Writes one tower's batches of one factor. Used by one thread at a time; writers of one stream may
// be used by different threads.
//
// What is written is kept until the server has counted it for good or said that it never will, and
// is sent again when the stream was cut, the server was restarted, or had no room for it. So each
// batch counts exactly once. When the factor is reset or deleted, or another process takes the
// tower over, the writer ends (OLD_INCARNATION, FACTOR_NOT_FOUND, TOWER_CLAIMED); open anew.
//
// A batch that the server refuses has changed nothing. The refusal is kept until a Write or a
// WaitEnded has reported it; the writer then goes on at the refused step, and the steps that were
// written after it are to be written again, because the server takes no step without the one
// before.
class UpdateWriter {
 public:
  // Movable; a moved-from writer may only be destroyed or assigned to.
  UpdateWriter(UpdateWriter&&) noexcept;
  UpdateWriter& operator=(UpdateWriter&&) noexcept;
  ~UpdateWriter();

  const std::string& factor() const;
  int tower() const;

  // The step that the next Write will write.
  int64_t next_step() const;

  // Where the factor stood at the server's last word; `missed` holds every step that ended without
  // this tower's batch.
  v1::Progress progress() const;

  UpdateStats stats() const;

  // Writes a batch as the next step, and returns that step's number. It does not wait for the step
  // to end, only until the window has room for it (the step is below next + window) and the buffer
  // too, and, if the stream stands, until the transport has taken the bytes. Errors, after which
  // nothing of this batch counts:
  //
  //   INVALID_ARGUMENT     BAD_ARGUMENT: the tensors' rows differ, or one row exceeds a message.
  //                        NON_FINITE_INPUT: found while a contribution was computed
  //   FAILED_PRECONDITION  STEP_LATE: the step has ended without this tower; the next Write is of
  //                        the one after it
  //   DEADLINE_EXCEEDED    the window had no room within `timeout`: another tower lags, or the
  //                        server is away
  //   RESOURCE_EXHAUSTED   CLIENT_BUFFER: the buffer had no room within `timeout`, or never will
  //   the refusal's own    this batch, or one before it, was refused; see next_step()
  //   the writer's own     it has ended, or the stream, see UpdateStream::status()
  absl::StatusOr<int64_t> Write(const Batch& batch, const StepOptions& options,
                                absl::Duration timeout = absl::InfiniteDuration());

  // Waits until a written step has ended, over cuts and restarts: OK if it was counted.
  //
  //   FAILED_PRECONDITION  STEP_FAILED: the step ended without counting this batch
  //   OUT_OF_RANGE         the step has not been written
  //   DEADLINE_EXCEEDED    it has not ended within `timeout`
  //   the refusal's own    its batch was refused, or one before it
  //   the writer's own     it has ended; whether the step will count is not known
  absl::Status WaitEnded(int64_t step, absl::Duration timeout = absl::InfiniteDuration());

  // The same, until the step has been counted for good: a crash of the server cannot undo it.
  absl::Status WaitDurable(int64_t step, absl::Duration timeout = absl::InfiniteDuration());

 private:
  friend class UpdateStream;
  struct Impl;
  explicit UpdateWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A process's stream of batches, for any number of factors. Thread-safe. Writers keep what they
// need of it alive, but cannot write once it is closed.
class UpdateStream {
 public:
  // Movable; a moved-from stream may only be destroyed or assigned to.
  UpdateStream(UpdateStream&&) noexcept;
  UpdateStream& operator=(UpdateStream&&) noexcept;
  // Closes, within a few seconds.
  ~UpdateStream();

  // Claims a tower of a factor, and says where it begins: UpdateWriter::next_step(). A writer that
  // this stream has opened for it before ends with ABORTED, and what it kept goes.
  //
  //   FAILED_PRECONDITION  TOWER_CLAIMED: another process holds the tower
  //   NOT_FOUND            FACTOR_NOT_FOUND
  //   OUT_OF_RANGE         the factor has no such tower
  //   UNAVAILABLE          no server was reached in time
  //   the stream's own     the stream has ended
  absl::StatusOr<UpdateWriter> Open(std::string_view factor, int tower,
                                    const OpenOptions& options = {});

  // OK while the stream lives, cut or not, then how it ended (CANCELLED after Close). What ends it
  // for good: ABORTED (STREAM_SUPERSEDED), UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED,
  // INVALID_ARGUMENT and the like, and reconnect_timeout.
  absl::Status status() const;

  // Sends what has been written but not sent, lets the server read it, and ends the stream; if that
  // takes longer than `timeout`, cancels it. Returns the server's last status, or UNAVAILABLE if
  // not everything has reached it. Batches that are whole at the server still count; whether they
  // have, WaitEnded and WaitDurable say before.
  absl::Status Close(absl::Duration timeout = absl::Seconds(5));

 private:
  friend class Client;
  friend class UpdateWriter;
  class Impl;
  explicit UpdateStream(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace fisherd

#endif  // FISHERD_UPDATE_STREAM_H_
