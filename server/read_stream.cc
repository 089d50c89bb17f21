#include "server/read_stream.h"

#include <span>
#include <utility>
#include <vector>

#include "core/batch_reader.h"
#include "server/codec.h"
#include "server/factor_error.h"
#include "server/status.h"

namespace fisherd::server {

ReadStream::ReadStream(const ReadEnvironment& environment, const v1::ReadRequest& request)
    : factor_(request.factor()),
      waiting_(environment.waiting_reads),
      timer_(environment.stall_timeout,
             [this, timeout = environment.stall_timeout] { End(Stalled(timeout)); }) {
  const auto call = ParseReadCall(*environment.registry, request);
  if (!call.ok()) {
    End(call.status());
    return;
  }
  view_ = call->view;
  // The last thing done here, for the answer may come at once, and on another thread.
  waiting_.Start(call->factor, call->request,
                 [this](absl::StatusOr<core::ReadResult> answer) { OnAnswer(std::move(answer)); });
}

void ReadStream::OnAnswer(absl::StatusOr<core::ReadResult> answer) {
  if (!answer.ok()) return End(answer.status());
  v1::ReadHeader* const header = response_.mutable_header();
  *header->mutable_operator_() = OperatorInfoOf(*answer);
  if (answer->op == nullptr) {
    header->set_unchanged(true);
    timer_.Stop();
    StartWriteAndFinish(&response_, {}, grpc::Status::OK);
    return;
  }
  op_ = std::move(answer->op);
  const std::vector<core::TensorSpec> tensors = op_->Tensors(view_);
  for (const core::TensorSpec& tensor : tensors) *header->add_tensors() = ToProto(tensor);
  sequence_ = ChunkSequence(tensors);
  timer_.Run([this] { StartWrite(&response_); });
}

void ReadStream::SendChunk() {
  // The response is used again, and with it the chunk's memory.
  v1::TensorChunk* const chunk = response_.mutable_chunk();
  chunk->set_tensor(sequence_.tensor());
  chunk->set_first_element(sequence_.first_element());
  const int64_t count = sequence_.max_elements();
  std::string* const data = chunk->mutable_data();
  data->resize(count * core::SizeOf(view_.dtype));
  const auto bytes = std::as_writable_bytes(std::span(*data));
  const absl::Status served =
      op_->Elements(view_, sequence_.tensor(), sequence_.first_element(), bytes);
  if (!served.ok()) return End(served);
  chunk->set_crc32c(core::Crc32c(0, bytes));
  sequence_.Advance(count);

  if (!sequence_.done()) {
    timer_.Run([this] { StartWrite(&response_); });
    return;
  }
  op_ = nullptr;
  timer_.Stop();
  StartWriteAndFinish(&response_, {}, grpc::Status::OK);
}

void ReadStream::OnWriteDone(bool ok) {
  if (!timer_.Done()) return;
  if (!ok) return End(absl::CancelledError("the caller has gone"));
  SendChunk();
}

// What is under way ends by this, and ends the call: the factor's answer, or the write.
void ReadStream::OnCancel() {
  waiting_.End(absl::CancelledError("the call was cancelled or its deadline has passed"));
}

void ReadStream::End(const absl::Status& status) {
  op_ = nullptr;
  timer_.Stop();
  Finish(ToGrpcStatus(NameFactor(status, factor_)));
}

void ReadStream::OnDone() { delete this; }

}  // namespace fisherd::server
