#include "fisherd/update_stream.h"

#include <utility>

#include "client/cpp/update_stream_impl.h"

namespace fisherd {

struct UpdateWriter::Impl {
  std::shared_ptr<UpdateStream::Impl> stream;
  std::shared_ptr<UpdateStream::Impl::Tower> state;
  const std::string factor;
  const int tower;
};

UpdateWriter::UpdateWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UpdateWriter::UpdateWriter(UpdateWriter&&) noexcept = default;
UpdateWriter& UpdateWriter::operator=(UpdateWriter&&) noexcept = default;
UpdateWriter::~UpdateWriter() = default;

const std::string& UpdateWriter::factor() const { return impl_->factor; }
int UpdateWriter::tower() const { return impl_->tower; }
int64_t UpdateWriter::next_step() const { return impl_->stream->NextStep(*impl_->state); }
v1::Progress UpdateWriter::progress() const { return impl_->stream->ProgressOf(*impl_->state); }

absl::StatusOr<int64_t> UpdateWriter::Write(const Batch& batch, const StepOptions& options,
                                            absl::Duration timeout) {
  return impl_->stream->Write(*impl_->state, {.factor = impl_->factor, .tower = impl_->tower},
                              batch, options, absl::Now() + timeout);
}

absl::Status UpdateWriter::WaitEnded(int64_t step, absl::Duration timeout) {
  return impl_->stream->WaitEnded(*impl_->state, step, absl::Now() + timeout);
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
  std::string name(factor);
  absl::StatusOr<std::shared_ptr<Impl::Tower>> opened = impl_->Open(name, tower, options);
  if (!opened.ok()) return opened.status();
  return UpdateWriter(std::unique_ptr<UpdateWriter::Impl>(new UpdateWriter::Impl{
      .stream = impl_, .state = *std::move(opened), .factor = std::move(name), .tower = tower}));
}

absl::Status UpdateStream::status() const { return impl_->status(); }
absl::Status UpdateStream::Close(absl::Duration timeout) { return impl_->Close(timeout); }

}  // namespace fisherd
