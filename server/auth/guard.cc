#include "server/auth/guard.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/error.h"
#include "core/names.h"
#include "grpcpp/security/auth_context.h"
#include "grpcpp/server_context.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

std::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

// The first value of a key; empty if there is none.
std::string_view Metadata(const grpc::ServerContextBase& context, const char* key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end() ? std::string_view() : View(found->second);
}

// "00-" 32 digits "-" 16 digits "-" 2 digits
std::string TraceOf(const grpc::ServerContextBase& context) {
  const std::string_view parent = Metadata(context, "traceparent");
  if (parent.size() != 55 || !parent.starts_with("00-") || parent[35] != '-') return "";
  const std::string_view id = parent.substr(3, 32);
  return std::all_of(id.begin(), id.end(), absl::ascii_isxdigit) ? std::string(id) : "";
}

// What a certificate that TLS has verified says of its owner.
std::vector<std::string> CertificateNames(const grpc::ServerContextBase& context) {
  std::vector<std::string> names;
  const auto peer = context.auth_context();
  if (peer == nullptr || !peer->IsPeerAuthenticated()) return names;
  for (const char* property :
       {"x509_common_name", "x509_subject_alternative_name", "peer_spiffe_id"}) {
    for (const grpc::string_ref& name : peer->FindPropertyValues(property)) {
      names.emplace_back(View(name));
    }
  }
  return names;
}

absl::Status QuotaReached(const std::string& identity, const char* what, int64_t used,
                          int64_t wanted, int64_t limit) {
  return core::MakeError(absl::StatusCode::kResourceExhausted, core::reason::kQuota,
                         absl::StrCat("identity ", identity, " has ", used, " ", what,
                                      " and wants ", wanted, " more; its quota is ", limit));
}

}  // namespace

absl::Status Caller::Check(Permission permission, std::string_view target) const {
  return guard_ == nullptr ? absl::OkStatus() : guard_->Check(*this, permission, target);
}

absl::StatusOr<std::unique_ptr<Guard>> Guard::Open(const std::string& path) {
  std::shared_ptr<const Identities> identities;
  if (!path.empty()) {
    auto loaded = Identities::Load(path);
    if (!loaded.ok()) return loaded.status();
    identities = std::make_shared<const Identities>(*std::move(loaded));
  }
  return std::unique_ptr<Guard>(new Guard(path, std::move(identities)));
}

absl::Status Guard::Reload() {
  if (path_.empty()) return absl::OkStatus();
  auto loaded = Identities::Load(path_);
  if (!loaded.ok()) return loaded.status();
  LogInfo(loaded->size(), " identities from ", path_);
  core::MutexLock lock(&mutex_);
  identities_ = std::make_shared<const Identities>(*std::move(loaded));
  return absl::OkStatus();
}

absl::StatusOr<Caller> Guard::Enter(const grpc::ServerContextBase& context) {
  const std::shared_ptr<const Identities> known = identities();
  if (known == nullptr) return Caller(nullptr, "", TraceOf(context));
  const Identity* identity = nullptr;
  if (const std::string_view header = Metadata(context, "authorization"); !header.empty()) {
    // RFC 6750; the scheme in any case, as RFC 9110 has it.
    constexpr absl::string_view kScheme = "bearer ";
    if (absl::StartsWithIgnoreCase({header.data(), header.size()}, kScheme)) {
      identity = known->ByToken(header.substr(kScheme.size()));
    }
  } else {
    identity = known->ByCertificate(CertificateNames(context));
  }
  if (identity == nullptr) {
    ++unauthenticated_;
    return core::MakeError(absl::StatusCode::kUnauthenticated, core::reason::kUnauthenticated,
                           "the call has no bearer token and no certificate that is known here");
  }
  return Caller(this, identity->name, TraceOf(context));
}

absl::StatusOr<Caller> Guard::Enter(const grpc::ServerContextBase& context, Permission permission,
                                    std::string_view target) {
  absl::StatusOr<Caller> caller = Enter(context);
  if (!caller.ok()) return caller;
  if (absl::Status status = caller->Check(permission, target); !status.ok()) return status;
  return caller;
}

absl::Status Guard::Check(const Caller& caller, Permission permission, std::string_view target) {
  const std::shared_ptr<const Identities> known = identities();
  const Identity* const identity = known->ByName(caller.name());
  if (identity != nullptr && identity->May(permission, target)) return absl::OkStatus();
  ++denied_;
  return core::MakeError(absl::StatusCode::kPermissionDenied, core::reason::kPermissionDenied,
                         absl::StrCat("identity ", caller.name(), " may not ", NameOf(permission),
                                      " ", core::Quote(target)));
}

absl::Status Guard::Administer(const grpc::ServerContextBase& context, std::string_view method,
                               std::string_view target, const std::function<absl::Status()>& call) {
  const absl::StatusOr<Caller> caller = Enter(context);
  absl::Status status = caller.status();
  if (status.ok()) status = caller->Check(Permission::kAdmin, target);
  if (status.ok()) status = call();
  LogFields fields = {{"method", std::string(method)},
                      {"target", core::Quote(target)},
                      {"peer", context.peer()},
                      {"status", absl::StatusCodeToString(status.code())}};
  if (caller.ok() && !caller->name().empty()) fields.emplace_back("identity", caller->name());
  if (caller.ok() && !caller->trace().empty()) fields.emplace_back("trace", caller->trace());
  Log(LogLevel::kAudit, "administration", fields);
  return status;
}

// Nobody's has no quota.
Identity Guard::IdentityOf(const Caller& caller) const {
  const std::shared_ptr<const Identities> known = identities();
  const Identity* const identity = known == nullptr ? nullptr : known->ByName(caller.name());
  return identity == nullptr ? Identity() : *identity;
}

absl::Status Guard::WithinQuota(const Caller& caller, const core::FactorRegistry& registry,
                                const std::function<Growth()>& growth,
                                const std::function<absl::Status()>& call) {
  const Identity identity = IdentityOf(caller);
  const Quota& quota = identity.quota;
  if (quota.bytes == Quota::kNone && quota.factors == Quota::kNone) return call();
  core::MutexLock lock(&creating_);
  const auto [factors, bytes] = growth();
  int64_t used_factors = 0;
  int64_t used_bytes = 0;
  for (const std::string& prefix : identity.UpdatePrefixes()) {
    for (const auto& factor : registry.List(prefix, "", std::numeric_limits<size_t>::max())) {
      ++used_factors;
      used_bytes += factor->Describe().estimated_bytes;
    }
  }
  if (factors > 0 && used_factors > quota.factors - factors) {
    return QuotaReached(caller.name(), "factors", used_factors, factors, quota.factors);
  }
  if (bytes > 0 && used_bytes > quota.bytes - bytes) {
    return QuotaReached(caller.name(), "bytes", used_bytes, bytes, quota.bytes);
  }
  return call();
}

absl::StatusOr<std::shared_ptr<void>> Guard::TakeStream(const Caller& caller) {
  const Quota quota = IdentityOf(caller).quota;
  if (quota.streams == Quota::kNone) return std::shared_ptr<void>();
  core::MutexLock lock(&mutex_);
  int64_t& streams = streams_[caller.name()];
  if (streams >= quota.streams) {
    return QuotaReached(caller.name(), "streams", streams, 1, quota.streams);
  }
  ++streams;
  // Any address but null will do: what counts is the end.
  return std::shared_ptr<void>(this, [this, name = caller.name()](void*) {
    core::MutexLock end_lock(&mutex_);
    --streams_[name];
  });
}

}  // namespace fisherd::server
