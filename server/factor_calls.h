// The unary calls without gRPC: a request in, a response or a status out. One function a call; what
// each promises stands in factor_service.proto.

#ifndef FISHERD_SERVER_FACTOR_CALLS_H_
#define FISHERD_SERVER_FACTOR_CALLS_H_

#include <functional>

#include "absl/status/status.h"
#include "core/factor_registry.h"
#include "fisherd/v1/factor_service.pb.h"
#include "server/auth/guard.h"

namespace fisherd::server {

// Thread-safe. A response means something only with an OK status.
class FactorCalls {
 public:
  // The registry must outlive this.
  explicit FactorCalls(core::FactorRegistry* registry) : registry_(*registry) {}

  absl::Status CreateFactor(const v1::CreateFactorRequest& request,
                            v1::CreateFactorResponse& response);
  // What a good request would add; nothing if that is there already, or the request is not good.
  Growth GrowthOf(const v1::CreateFactorRequest& request) const;
  Growth GrowthOf(const v1::RegisterRequest& request) const;
  absl::Status DescribeFactor(const v1::DescribeFactorRequest& request,
                              v1::DescribeFactorResponse& response);
  absl::Status ListFactors(const v1::ListFactorsRequest& request,
                           v1::ListFactorsResponse& response);
  absl::Status DeleteFactor(const v1::DeleteFactorRequest& request);
  absl::Status ResetFactor(const v1::ResetFactorRequest& request,
                           v1::ResetFactorResponse& response);

  absl::Status SetTowers(const v1::SetTowersRequest& request, v1::SetTowersResponse& response);

  absl::Status SetDamping(const v1::SetDampingRequest& request);
  absl::Status ListDampings(const v1::ListDampingsRequest& request,
                            v1::ListDampingsResponse& response);
  absl::Status DeleteDamping(const v1::DeleteDampingRequest& request);

  absl::Status Register(const v1::RegisterRequest& request, v1::RegisterResponse& response);
  absl::Status Unregister(const v1::UnregisterRequest& request);

  // Calls back exactly once, from here or from a thread of the pool; `response` must live until
  // then.
  void UpdateInverses(const v1::UpdateInversesRequest& request,
                      v1::UpdateInversesResponse* response,
                      std::function<void(const absl::Status&)> done);

 private:
  core::FactorRegistry& registry_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_CALLS_H_
