#include "server/multiply_stream.h"

#include <span>
#include <utility>
#include <vector>

#include "core/batch_reader.h"
#include "core/error.h"
#include "server/codec.h"
#include "server/factor_error.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

absl::Status Malformed(const char* message) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kMalformedFrame,
                         message);
}

}  // namespace

MultiplyStream::MultiplyStream(const ReadEnvironment& environment, Caller caller)
    : caller_(std::move(caller)),
      registry_(*environment.registry),
      waiting_(environment.waiting_reads),
      timer_(environment.stall_timeout,
             [this, timeout = environment.stall_timeout] { End(Stalled(timeout)); }) {
  Receive();
}

void MultiplyStream::OnReadDone(bool ok) {
  if (!timer_.Done()) return;
  if (!ok) return End(CheckEnd());
  const bool begins = sequence_.done();
  absl::Status status = begins ? Start(request_) : Multiply(request_);
  if (!status.ok()) return End(status);
  if (!begins) Send();  // else OnAnswer follows, or has been already
}

absl::Status MultiplyStream::Start(const v1::MultiplyRequest& request) {
  if (!request.has_header()) {
    return Malformed(
        factor_.has_value()
            ? "no header follows the last chunk; expected one, or the end of the stream"
            : "the first message has no header");
  }
  factor_ = request.header().factor();
  if (absl::Status status = caller_.Check(Permission::kRead, *factor_); !status.ok()) return status;
  const auto call = ParseReadCall(registry_, request.header());
  if (!call.ok()) return call.status();
  view_ = call->view;
  waiting_.Start(call->factor, call->request,
                 [this](absl::StatusOr<core::ReadResult> answer) { OnAnswer(std::move(answer)); });
  return absl::OkStatus();
}

void MultiplyStream::OnAnswer(absl::StatusOr<core::ReadResult> answer) {
  if (!answer.ok()) return End(answer.status());
  v1::MultiplyResponseHeader* const header = response_.mutable_header();
  *header->mutable_operator_() = OperatorInfoOf(*answer);
  op_ = std::move(answer->op);
  const std::vector<core::TensorSpec> tensors = op_->Tensors(view_);
  for (const core::TensorSpec& tensor : tensors) *header->add_tensors() = ToProto(tensor);
  sequence_ = ChunkSequence(tensors);
  Send();
}

absl::Status MultiplyStream::Multiply(const v1::MultiplyRequest& request) {
  if (!request.has_chunk()) {
    return Malformed("a header comes before the last chunk of the one before; expected a chunk");
  }
  const v1::TensorChunk& x = request.chunk();
  if (absl::Status status = sequence_.Check(x); !status.ok()) return status;

  v1::TensorChunk* const product = response_.mutable_chunk();
  product->set_tensor(x.tensor());
  product->set_first_element(x.first_element());
  std::string* const data = product->mutable_data();
  data->resize(x.data().size());
  const auto bytes = std::as_writable_bytes(std::span(*data));
  absl::Status status = op_->Multiply(view_, x.tensor(), x.first_element(),
                                      std::as_bytes(std::span(x.data())), bytes);
  if (!status.ok()) return status;
  product->set_crc32c(core::Crc32c(0, bytes));

  sequence_.Advance(bytes.size() / core::SizeOf(view_.dtype));
  if (sequence_.done()) op_ = nullptr;
  return absl::OkStatus();
}

absl::Status MultiplyStream::CheckEnd() const {
  if (!factor_.has_value()) return Malformed("the stream ended before its header");
  return sequence_.CheckDone();
}

void MultiplyStream::OnWriteDone(bool ok) {
  if (!timer_.Done()) return;
  ok ? Receive() : End(absl::CancelledError("the caller has gone"));
}

// What is under way ends by this, and ends the call: the factor's answer, the read or the write.
void MultiplyStream::OnCancel() {
  waiting_.End(absl::CancelledError("the call was cancelled or its deadline has passed"));
}

void MultiplyStream::Receive() {
  timer_.Run([this] { StartRead(&request_); });
}

void MultiplyStream::Send() {
  timer_.Run([this] { StartWrite(&response_); });
}

void MultiplyStream::End(const absl::Status& status) {
  op_ = nullptr;
  timer_.Stop();
  Finish(ToGrpcStatus(factor_.has_value() ? NameFactor(status, *factor_) : status));
}

void MultiplyStream::OnDone() { delete this; }

}  // namespace fisherd::server
