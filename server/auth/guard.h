// Who calls, and whether they may.

#ifndef FISHERD_SERVER_AUTH_GUARD_H_
#define FISHERD_SERVER_AUTH_GUARD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "server/auth/identities.h"

namespace grpc {
class ServerContextBase;
}  // namespace grpc

namespace fisherd::server {

class Guard;

// What a call adds to the factors of an identity; nothing, if it is refused anyway.
struct Growth {
  int64_t factors = 0;
  int64_t bytes = 0;
};

// One call's: who makes it. What it may is looked up each time, so that a reload counts for streams
// that are open. Thread-safe. The guard must outlive it.
class Caller {
 public:
  // May do everything.
  Caller() = default;
  Caller(Guard* guard, std::string name, std::string trace)
      : guard_(guard), name_(std::move(name)), trace_(std::move(trace)) {}

  // PERMISSION_DENIED
  absl::Status Check(Permission permission, std::string_view target) const;

  // Empty where there are no identities.
  const std::string& name() const { return name_; }
  // The trace id of its traceparent (w3.org/TR/trace-context); empty if it has none.
  const std::string& trace() const { return trace_; }

 private:
  friend class Guard;
  Guard* guard_ = nullptr;  // null: nobody asks
  std::string name_;
  std::string trace_;
};

// Thread-safe. Must outlive all calls.
class Guard {
 public:
  // Everyone may do everything if `path` is empty. INVALID_ARGUMENT as Identities::Load.
  static absl::StatusOr<std::unique_ptr<Guard>> Open(const std::string& path);
  // Reads the file again; what there was stays if it is no good.
  absl::Status Reload();

  // By its bearer token, or else by its certificate. UNAUTHENTICATED. Before anything else is
  // looked at.
  absl::StatusOr<Caller> Enter(const grpc::ServerContextBase& context);
  // The same, and that it may.
  absl::StatusOr<Caller> Enter(const grpc::ServerContextBase& context, Permission permission,
                               std::string_view target);

  // What an administrator does is logged, and how it ended; also that somebody else was refused.
  // `target` is a name or a prefix.
  absl::Status Administer(const grpc::ServerContextBase& context, std::string_view method,
                          std::string_view target, const std::function<absl::Status()>& call);

  // Runs `call`, if the caller's quota has room for what it adds; nobody asks for that where there
  // is no quota. RESOURCE_EXHAUSTED (QUOTA).
  absl::Status WithinQuota(const Caller& caller, const core::FactorRegistry& registry,
                           const std::function<Growth()>& growth,
                           const std::function<absl::Status()>& call);
  // Of a stream that sends batches, for as long as it lives. RESOURCE_EXHAUSTED (QUOTA).
  absl::StatusOr<std::shared_ptr<void>> TakeStream(const Caller& caller);

  int64_t unauthenticated() const { return unauthenticated_; }
  int64_t denied() const { return denied_; }

 private:
  friend class Caller;
  Guard(std::string path, std::shared_ptr<const Identities> identities)
      : path_(std::move(path)), identities_(std::move(identities)) {}
  std::shared_ptr<const Identities> identities() const {
    core::MutexLock lock(&mutex_);
    return identities_;
  }
  Identity IdentityOf(const Caller& caller) const;
  absl::Status Check(const Caller& caller, Permission permission, std::string_view target);

  const std::string path_;
  std::atomic<int64_t> unauthenticated_ = 0;
  std::atomic<int64_t> denied_ = 0;
  core::Mutex creating_;  // held while one with a quota makes something: no two fill the same room
  mutable core::Mutex mutex_;
  std::shared_ptr<const Identities> identities_ ABSL_GUARDED_BY(mutex_);  // null: there are none
  std::map<std::string, int64_t> streams_ ABSL_GUARDED_BY(mutex_);        // by identity
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_AUTH_GUARD_H_
