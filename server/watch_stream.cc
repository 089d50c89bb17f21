#include "server/watch_stream.h"

#include <vector>

#include "core/error.h"
#include "server/codec.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

constexpr size_t kMaxEvents = 256;

absl::Status ShuttingDown() {
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                         "the server shuts down; watch again when it is back");
}

}  // namespace

WatchStream::WatchStream(core::FactorRegistry& registry, const v1::WatchRequest& request)
    : registry_(registry), prefix_(request.prefix()) {}

WatchStream* WatchStream::Start(core::FactorRegistry& registry, const v1::WatchRequest& request) {
  const std::shared_ptr<WatchStream> stream(new WatchStream(registry, request));
  stream->self_ = stream;
  core::MutexLock lock(&stream->mutex_);
  // It may wake the stream at any time, also when that is no more.
  stream->watcher_ =
      registry.watchers().Watch(request.prefix(), [weak = std::weak_ptr<WatchStream>(stream)] {
        if (const auto woken = weak.lock()) {
          core::MutexLock woken_lock(&woken->mutex_);
          woken->Proceed();
        }
      });
  stream->Proceed();
  return stream.get();
}

void WatchStream::OnWriteDone(bool ok) {
  core::MutexLock lock(&mutex_);
  writing_ = false;
  ok ? Proceed() : End(absl::CancelledError("the caller has gone"));
}

void WatchStream::OnCancel() {
  core::MutexLock lock(&mutex_);
  End(absl::CancelledError("the call was cancelled or its deadline has passed"));
}

void WatchStream::OnDone() { self_.reset(); }

void WatchStream::Proceed() {
  if (finished_) return;
  if (watcher_->closed()) return End(ShuttingDown());
  if (writing_ || !FillResponse()) return;
  writing_ = true;
  StartWrite(&response_);
}

bool WatchStream::FillResponse() {
  std::vector<core::FactorEvent> events = watcher_->Take(kMaxEvents);
  // A page at a time, so that the queue never holds the whole registry.
  while (events.empty() && !listed_) {
    const auto page = registry_.List(prefix_, last_listed_, kMaxEvents);
    for (const auto& factor : page) factor->Present(*watcher_);
    listed_ = page.size() < kMaxEvents;
    if (!page.empty()) last_listed_ = page.back()->name();
    events = watcher_->Take(kMaxEvents);
  }
  response_.Clear();
  for (const core::FactorEvent& event : events) *response_.add_events() = ToProto(event);
  return !events.empty();
}

// Also amid a write: who does not read shall not hold up the end.
void WatchStream::End(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  watcher_ = nullptr;
  Finish(ToGrpcStatus(status));
}

}  // namespace fisherd::server
