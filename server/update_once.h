// UpdateOnce: one batch by a unary call.

#ifndef FISHERD_SERVER_UPDATE_ONCE_H_
#define FISHERD_SERVER_UPDATE_ONCE_H_

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/factor.h"
#include "core/factor_registry.h"
#include "core/mutex.h"
#include "fisherd/v1/factor_service.pb.h"
#include "grpcpp/alarm.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"

namespace fisherd::server {

class UpdateOnce;

// All calls of one client for one factor: together they hold its towers, so that calls for several
// steps can wait beside each other. Thread-safe.
class OnceClaimant final : public core::ProgressListener {
 public:
  void OnProgress(const std::shared_ptr<core::Factor>& factor) override;
  void OnHold(const std::shared_ptr<core::Factor>& factor, int tower, int64_t step) override;

 private:
  friend class OnceTable;
  std::vector<std::shared_ptr<UpdateOnce>> Calls();

  core::Mutex mutex_;
  std::map<const UpdateOnce*, std::weak_ptr<UpdateOnce>> calls_ ABSL_GUARDED_BY(mutex_);
};

// A server's UpdateOnce calls. Thread-safe; must outlive them.
class OnceTable {
 public:
  // Each call keeps its message in memory until it is answered, so there are at most `max_calls`.
  explicit OnceTable(size_t max_calls) : max_calls_(max_calls) {}

  // A call begins: what it claims its tower by. RESOURCE_EXHAUSTED (TOO_MANY_STREAMS), UNAVAILABLE
  // (SHUTTING_DOWN).
  absl::StatusOr<std::shared_ptr<OnceClaimant>> Join(const std::shared_ptr<UpdateOnce>& call,
                                                     const core::ClientId& client,
                                                     const std::shared_ptr<core::Factor>& factor);
  // It has ended; with the last of its claimant the claims go.
  void Leave(const UpdateOnce* call);

  // Ends all calls, and those that come: UNAVAILABLE (SHUTTING_DOWN).
  void Shutdown();

 private:
  using Key = std::pair<core::ClientId, std::shared_ptr<core::Factor>>;

  const size_t max_calls_;
  core::Mutex mutex_;  // before those of claimants and factors
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<Key, std::shared_ptr<OnceClaimant>> claimants_ ABSL_GUARDED_BY(mutex_);
  std::map<const UpdateOnce*, Key> calls_ ABSL_GUARDED_BY(mutex_);
};

// The reactor of one call. Sends the batch, waiting for room if need be, and answers when its step
// has ended, or shortly before its deadline with what is known. The batch stays then, as if a
// stream had sent it, and the call may be repeated. Owns itself until gRPC is done with it.
class UpdateOnce final : public grpc::ServerUnaryReactor,
                         public std::enable_shared_from_this<UpdateOnce> {
 public:
  // For the service to return. All of them must outlive the call, which keeps `place`.
  static UpdateOnce* Start(core::FactorRegistry& registry, OnceTable& calls,
                           grpc::CallbackServerContext* context,
                           const v1::UpdateOnceRequest* request, v1::UpdateOnceResponse* response,
                           std::shared_ptr<void> place = nullptr);

  // Something has changed: looks whether it ends the call.
  void Proceed();
  // The tower's batches from `step` on had to make room: the call's own is to be sent again.
  void Resend(int tower, int64_t step);
  void End(const absl::Status& status);

  void OnCancel() override;
  void OnDone() override;

 private:
  UpdateOnce(core::FactorRegistry& registry, OnceTable& calls, const v1::UpdateOnceRequest* request,
             v1::UpdateOnceResponse* response)
      : registry_(registry), calls_(calls), request_(*request), response_(*response) {}

  absl::Status Claim();
  // False: there is no room yet. OnProgress follows when there is.
  absl::StatusOr<bool> TrySend() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // nullopt: there is nothing to answer yet.
  std::optional<absl::Status> TryAnswer(bool now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ProceedLocked(bool now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<grpc::Alarm> AnswerAt(absl::Time time);

  core::FactorRegistry& registry_;
  OnceTable& calls_;
  const v1::UpdateOnceRequest& request_;  // gRPC's, until OnDone
  v1::UpdateOnceResponse& response_;
  std::shared_ptr<UpdateOnce> self_;
  std::shared_ptr<void> place_;

  // Set by Claim.
  core::BatchHeader header_;
  std::shared_ptr<core::Factor> factor_;
  std::shared_ptr<OnceClaimant> claimant_;

  core::Mutex mutex_;  // before the locks of table and factor
  bool claimed_ ABSL_GUARDED_BY(mutex_) = false;
  bool sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::Alarm> deadline_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_UPDATE_ONCE_H_
