#include "server/session_table.h"

#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "core/error.h"
#include "server/session.h"

namespace fisherd::server {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(1);

absl::Status ShuttingDown() {
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                         "the server is shutting down; open a new stream when it is back");
}

absl::Status Superseded(uint64_t stream, uint64_t live) {
  return core::MakeError(
      absl::StatusCode::kAborted, core::reason::kStreamSuperseded,
      absl::StrFormat("stream %d of this client_id gives way to its stream %d; a new stream needs "
                      "a higher number, and another process another client_id",
                      stream, live),
      {{"field", "hello.stream"}});
}

absl::Status TooManyStreams(size_t max_streams) {
  return core::MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrFormat("the server has %d streams, as many as it takes; try again later",
                      max_streams),
      {.reason = std::string(core::reason::kTooManyStreams),
       .metadata = {},
       .retry_after = kRetryDelay});
}

}  // namespace

absl::Status SessionTable::Add(std::shared_ptr<Session> session) {
  std::shared_ptr<Session> oldest;
  {
    core::MutexLock lock(&mutex_);
    if (shutting_down_) return ShuttingDown();
    sessions_.insert(session);
    nobodys_.push_back(std::move(session));
    if (nobodys_.size() > max_streams_) {
      oldest = std::move(nobodys_.front());
      nobodys_.pop_front();
    }
  }
  if (oldest != nullptr) oldest->Close(TooManyStreams(max_streams_));
  return absl::OkStatus();
}

absl::Status SessionTable::Enter(const core::ClientId& client, uint64_t stream,
                                 const std::shared_ptr<Session>& session) {
  Stream older;
  {
    core::MutexLock lock(&mutex_);
    if (shutting_down_) return ShuttingDown();
    std::erase(nobodys_, session);
    if (const auto it = streams_.find(client); it != streams_.end()) {
      if (stream <= it->second.number) return Superseded(stream, it->second.number);
      older = std::exchange(it->second, {stream, session});
    } else if (streams_.size() < max_streams_) {
      streams_.emplace(client, Stream{stream, session});
    } else {
      return TooManyStreams(max_streams_);
    }
  }
  if (older.session != nullptr) older.session->Close(Superseded(older.number, stream));
  return absl::OkStatus();
}

void SessionTable::Remove(const std::shared_ptr<Session>& session) {
  core::MutexLock lock(&mutex_);
  sessions_.erase(session);
  std::erase(nobodys_, session);
  std::erase_if(streams_, [&](const auto& entry) { return entry.second.session == session; });
}

void SessionTable::Shutdown() {
  std::set<std::shared_ptr<Session>> sessions;
  {
    core::MutexLock lock(&mutex_);
    shutting_down_ = true;
    sessions = sessions_;
  }
  for (const auto& session : sessions) session->Close(ShuttingDown());
}

}  // namespace fisherd::server
