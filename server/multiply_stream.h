// The reactor of one Multiply: for each factor a header, then each chunk of x answered by a chunk
// of the product.

#ifndef FISHERD_SERVER_MULTIPLY_STREAM_H_
#define FISHERD_SERVER_MULTIPLY_STREAM_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/factor.h"
#include "core/linear_operator.h"
#include "fisherd/v1/factor_service.pb.h"
#include "grpcpp/support/server_callback.h"
#include "server/auth/guard.h"
#include "server/chunk_sequence.h"
#include "server/read_call.h"
#include "server/stall_timer.h"
#include "server/waiting_reads.h"

namespace fisherd::server {

// Deletes itself when the call is over. One thing is under way at a time: a read, the factor's
// answer, or a write; the client may be ahead of it by as much as the connection holds. A client
// that stops sending or reading for stall_timeout is finished with READ_STALLED, and the version
// that it held goes; see ReadStream.
class MultiplyStream final
    : public grpc::ServerBidiReactor<v1::MultiplyRequest, v1::MultiplyResponse> {
 public:
  MultiplyStream(const ReadEnvironment& environment, Caller caller);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::Status Start(const v1::MultiplyRequest& request);
  void OnAnswer(absl::StatusOr<core::ReadResult> answer);
  absl::Status Multiply(const v1::MultiplyRequest& request);
  absl::Status CheckEnd() const;
  void Receive();
  void Send();
  void End(const absl::Status& status);

  const Caller caller_;
  const core::FactorRegistry& registry_;
  std::optional<std::string> factor_;  // of the last header
  core::TensorView view_;
  std::shared_ptr<const core::LinearOperator> op_;  // while chunks are to come
  ChunkSequence sequence_;                          // done: a header is to come
  v1::MultiplyRequest request_;
  v1::MultiplyResponse response_;
  WaitingRead waiting_;
  StallTimer timer_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_MULTIPLY_STREAM_H_
