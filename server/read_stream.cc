#include "server/read_stream.h"

#include <span>
#include <utility>
#include <vector>

#include "core/batch_reader.h"
#include "server/codec.h"
#include "server/factor_error.h"
#include "server/reactor_tsan.h"
#include "server/status.h"

namespace fisherd::server {

ReadStream::ReadStream(const ReadEnvironment& environment, const v1::ReadRequest& request)
    : factor_(request.factor()),
      waiting_(environment.waiting_reads),
      timer_(environment.stall_timeout, [this, timeout = environment.stall_timeout] {
        ReactorAcquired(this);
        End(Stalled(timeout));
      }) {
  ReactorReleases(this);
  if (absl::Status status = Start(environment, request); !status.ok()) End(status);
}

// If it is OK, OnAnswer follows, or has been already.
absl::Status ReadStream::Start(const ReadEnvironment& environment, const v1::ReadRequest& request) {
  auto factor = environment.registry->Find(factor_);
  if (!factor.ok()) return factor.status();
  core::ReadRequest read;
  auto op = FromProto(request.operator_(), "operator");
  if (!op.ok()) return op.status();
  read.op = *std::move(op);
  const auto dtype = FromProto(request.dtype(), "dtype");
  if (!dtype.ok()) return dtype.status();
  read.dtype = *dtype;
  const auto layout = FromProto(request.layout(), "layout");
  if (!layout.ok()) return layout.status();
  if (request.has_if_version_not()) read.if_version_not = FromProto(request.if_version_not());
  if (request.has_min_version()) {
    const auto min_version = FromProto(request.min_version(), "min_version");
    if (!min_version.ok()) return min_version.status();
    read.min_version = *min_version;
  }
  view_ = {.layout = *layout,
           .split_bias = request.split_bias(),
           .dtype = *dtype == core::DataType::kUnspecified ? (*factor)->spec().dtype : *dtype};
  waiting_.Start(*factor, read,
                 [this](absl::StatusOr<core::ReadResult> answer) { OnAnswer(std::move(answer)); });
  return absl::OkStatus();
}

void ReadStream::OnAnswer(absl::StatusOr<core::ReadResult> answer) {
  if (!answer.ok()) return End(answer.status());
  SendHeader(*std::move(answer));
}

void ReadStream::SendHeader(core::ReadResult result) {
  v1::ReadHeader* const header = response_.mutable_header();
  *header->mutable_operator_() = OperatorInfoOf(result);
  if (result.op == nullptr) {
    header->set_unchanged(true);
    timer_.Stop();
    ReactorReleases(this);
    StartWriteAndFinish(&response_, {}, grpc::Status::OK);
    return;
  }
  op_ = std::move(result.op);
  const std::vector<core::TensorSpec> tensors = op_->Tensors(view_);
  for (const core::TensorSpec& tensor : tensors) *header->add_tensors() = ToProto(tensor);
  sequence_ = ChunkSequence(tensors);
  ReactorReleases(this);
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
  op_->Elements(view_, sequence_.tensor(), sequence_.first_element(), bytes);
  chunk->set_crc32c(core::Crc32c(0, bytes));
  sequence_.Advance(count);

  if (!sequence_.done()) {
    ReactorReleases(this);
    timer_.Run([this] { StartWrite(&response_); });
    return;
  }
  op_ = nullptr;
  timer_.Stop();
  ReactorReleases(this);
  StartWriteAndFinish(&response_, {}, grpc::Status::OK);
}

void ReadStream::OnWriteDone(bool ok) {
  ReactorAcquired(this);
  if (!timer_.Done()) return;
  if (!ok) return End(absl::CancelledError("the caller has gone"));
  SendChunk();
}

// What is under way ends by this, and ends the call: the factor's answer, or the write.
void ReadStream::OnCancel() {
  ReactorAcquired(this);
  waiting_.End(absl::CancelledError("the call was cancelled or its deadline has passed"));
}

void ReadStream::End(const absl::Status& status) {
  op_ = nullptr;
  timer_.Stop();
  ReactorReleases(this);
  Finish(ToGrpcStatus(NameFactor(status, factor_)));
}

void ReadStream::OnDone() {
  ReactorAcquired(this);
  delete this;
}

}  // namespace fisherd::server
