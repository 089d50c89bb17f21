#include "server/waiting_reads.h"

#include <utility>

#include "core/error.h"

namespace fisherd::server {
namespace {

absl::Status ShuttingDown() {
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                         "the server shuts down; repeat the call");
}

}  // namespace

void WaitingReads::Shutdown() {
  core::MutexLock lock(&mutex_);
  shutting_down_ = true;
  for (WaitingRead* read : reads_) read->End(ShuttingDown());
}

WaitingRead::WaitingRead(WaitingReads* reads) : reads_(reads) {
  core::MutexLock lock(&reads_->mutex_);
  reads_->reads_.insert(this);
  if (reads_->shutting_down_) End(ShuttingDown());
}

WaitingRead::~WaitingRead() {
  core::MutexLock lock(&reads_->mutex_);
  reads_->reads_.erase(this);
}

void WaitingRead::Start(const std::shared_ptr<core::Factor>& factor,
                        const core::ReadRequest& request, core::ReadCallback callback) {
  absl::Status end;
  {
    core::MutexLock lock(&mutex_);
    end = end_;
    if (end.ok()) {
      factor_ = factor;
      // Under the lock, so that the answer, which may destroy this, cannot overtake the number.
      number_ = factor->StartRead(request, [this, callback](absl::StatusOr<core::ReadResult> r) {
        {
          core::MutexLock answer_lock(&mutex_);
          factor_ = nullptr;
          if (!end_.ok()) r = end_;
        }
        callback(std::move(r));
      });
    }
  }
  if (!end.ok()) callback(end);
}

void WaitingRead::End(const absl::Status& status) {
  core::MutexLock lock(&mutex_);
  end_.Update(status);
  if (factor_ != nullptr) factor_->CancelRead(number_);
}

}  // namespace fisherd::server
