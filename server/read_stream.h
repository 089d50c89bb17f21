// The reactor of one Read: a header, then chunks computed one at a time from the version that the
// read has pinned.

#ifndef FISHERD_SERVER_READ_STREAM_H_
#define FISHERD_SERVER_READ_STREAM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/factor.h"
#include "core/linear_operator.h"
#include "fisherd/v1/factor_service.pb.h"
#include "grpcpp/support/server_callback.h"
#include "server/chunk_sequence.h"
#include "server/read_call.h"
#include "server/stall_timer.h"
#include "server/waiting_reads.h"

namespace fisherd::server {

// Deletes itself when the call is over. One thing is under way at a time, first the factor's
// answer, then one write; whoever ends it starts the next, so only cancellation and the stall come
// from elsewhere.
//
// A client that stops reading for stall_timeout is finished with READ_STALLED although a chunk is
// still on its way. The version goes at once; the client sees, when it reads again, the chunks that
// had been sent, at most one of them the server's to keep, and then that status.
class ReadStream final : public grpc::ServerWriteReactor<v1::ReadResponse> {
 public:
  ReadStream(const ReadEnvironment& environment, const v1::ReadRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void OnAnswer(absl::StatusOr<core::ReadResult> answer);
  void SendChunk();
  void End(const absl::Status& status);

  const std::string factor_;
  core::TensorView view_;
  std::shared_ptr<const core::LinearOperator> op_;  // null once nothing of it is left to send
  ChunkSequence sequence_;
  v1::ReadResponse response_;
  WaitingRead waiting_;
  StallTimer timer_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_READ_STREAM_H_
