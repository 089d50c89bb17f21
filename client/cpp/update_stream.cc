#include "fisherd/update_stream.h"

#include <utility>

#include "client/cpp/update_stream_impl.h"

namespace fisherd {

struct UpdateWriter::Impl {
  std::shared_ptr<UpdateStream::Impl> stream;
  std::shared_ptr<UpdateStream::Impl::Tower> tower;
};

UpdateWriter::UpdateWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UpdateWriter::UpdateWriter(UpdateWriter&&) noexcept = default;
UpdateWriter& UpdateWriter::operator=(UpdateWriter&&) noexcept = default;
UpdateWriter::~UpdateWriter() = default;

const std::string& UpdateWriter::factor() const { return impl_->tower->identity.factor; }
int UpdateWriter::tower() const { return impl_->tower->identity.tower; }
int64_t UpdateWriter::next_step() const { return impl_->stream->NextStep(*impl_->tower); }
v1::Progress UpdateWriter::progress() const { return impl_->stream->ProgressOf(*impl_->tower); }
UpdateStats UpdateWriter::stats() const { return impl_->stream->StatsOf(*impl_->tower); }

absl::StatusOr<int64_t> UpdateWriter::Write(const Batch& batch, const StepOptions& options,
                                            absl::Duration timeout) {
  return impl_->stream->Write(*impl_->tower, batch, options, absl::Now() + timeout);
}

absl::Status UpdateWriter::WaitEnded(int64_t step, absl::Duration timeout) {
  return impl_->stream->WaitEnded(*impl_->tower, step, absl::Now() + timeout);
}

absl::Status UpdateWriter::WaitDurable(int64_t step, absl::Duration timeout) {
  return impl_->stream->WaitDurable(*impl_->tower, step, absl::Now() + timeout);
}

UpdateStream::UpdateStream(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
UpdateStream::UpdateStream(UpdateStream&&) noexcept = default;

UpdateStream& UpdateStream::operator=(UpdateStream&& other) noexcept {
  std::swap(impl_, other.impl_);  // `other` closes what was here
  return *this;
}

UpdateStream::~UpdateStream() {
  if (impl_ != nullptr) Close().IgnoreError();
}

absl::StatusOr<UpdateWriter> UpdateStream::Open(std::string_view factor, int tower,
                                                const OpenOptions& options) {
  absl::StatusOr<std::shared_ptr<Impl::Tower>> opened =
      impl_->Open(std::string(factor), tower, options);
  if (!opened.ok()) return opened.status();
  return UpdateWriter(std::unique_ptr<UpdateWriter::Impl>(
      new UpdateWriter::Impl{.stream = impl_, .tower = *std::move(opened)}));
}

absl::Status UpdateStream::status() const { return impl_->status(); }
absl::Status UpdateStream::Close(absl::Duration timeout) { return impl_->Close(timeout); }

}  // namespace fisherd
