// fisherd.v1.FactorService on gRPC's callback API. Thin: every call is handed to its room.

#ifndef FISHERD_SERVER_FACTOR_SERVICE_H_
#define FISHERD_SERVER_FACTOR_SERVICE_H_

#include "fisherd/v1/factor_service.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/auth/guard.h"
#include "server/call_metrics.h"
#include "server/factor_calls.h"
#include "server/read_call.h"
#include "server/session_table.h"
#include "server/shared_memory_door.h"
#include "server/update_once.h"

namespace fisherd::server {
namespace internal {

// By callback what never waits, and Update as raw bytes. What changes a factor's life waits for the
// disk: such a call has a thread, which gRPC keeps for methods that are not by callback.
using Service = v1::FactorService::Service;
template <typename Base>
using UnaryMethods = v1::FactorService::WithCallbackMethod_DescribeFactor<
    v1::FactorService::WithCallbackMethod_ListFactors<
        v1::FactorService::WithCallbackMethod_ListDampings<
            v1::FactorService::WithCallbackMethod_UpdateInverses<Base>>>>;
template <typename Base>
using StreamMethods =
    v1::FactorService::WithRawCallbackMethod_Update<v1::FactorService::WithCallbackMethod_Read<
        v1::FactorService::WithCallbackMethod_Multiply<v1::FactorService::WithCallbackMethod_Watch<
            v1::FactorService::WithCallbackMethod_UpdateOnce<Base>>>>>;
using MixedService = UnaryMethods<StreamMethods<Service>>;

}  // namespace internal

// Thread-safe. What it is given must outlive the gRPC server; without a door (null) no memory is
// shared, and without metrics (null) Update is not counted.
class FactorService final : public internal::MixedService {
 public:
  FactorService(Guard* guard, core::FactorRegistry* registry, SessionTable* sessions,
                OnceTable* once_calls, const ReadEnvironment& read_environment,
                const SharedMemoryDoor* door, CallMetrics* metrics = nullptr)
      : guard_(*guard),
        calls_(registry),
        registry_(*registry),
        sessions_(*sessions),
        once_calls_(*once_calls),
        read_environment_(read_environment),
        door_(door),
        metrics_(metrics) {}

  grpc::Status CreateFactor(grpc::ServerContext* context, const v1::CreateFactorRequest* request,
                            v1::CreateFactorResponse* response) override;
  grpc::ServerUnaryReactor* DescribeFactor(grpc::CallbackServerContext* context,
                                           const v1::DescribeFactorRequest* request,
                                           v1::DescribeFactorResponse* response) override;
  grpc::ServerUnaryReactor* ListFactors(grpc::CallbackServerContext* context,
                                        const v1::ListFactorsRequest* request,
                                        v1::ListFactorsResponse* response) override;
  grpc::Status DeleteFactor(grpc::ServerContext* context, const v1::DeleteFactorRequest* request,
                            v1::DeleteFactorResponse* response) override;
  grpc::Status ResetFactor(grpc::ServerContext* context, const v1::ResetFactorRequest* request,
                           v1::ResetFactorResponse* response) override;
  grpc::Status SetTowers(grpc::ServerContext* context, const v1::SetTowersRequest* request,
                         v1::SetTowersResponse* response) override;

  grpc::Status SetDamping(grpc::ServerContext* context, const v1::SetDampingRequest* request,
                          v1::SetDampingResponse* response) override;
  grpc::ServerUnaryReactor* ListDampings(grpc::CallbackServerContext* context,
                                         const v1::ListDampingsRequest* request,
                                         v1::ListDampingsResponse* response) override;
  grpc::Status DeleteDamping(grpc::ServerContext* context, const v1::DeleteDampingRequest* request,
                             v1::DeleteDampingResponse* response) override;

  grpc::Status Register(grpc::ServerContext* context, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override;
  grpc::Status Unregister(grpc::ServerContext* context, const v1::UnregisterRequest* request,
                          v1::UnregisterResponse* response) override;
  grpc::ServerUnaryReactor* UpdateInverses(grpc::CallbackServerContext* context,
                                           const v1::UpdateInversesRequest* request,
                                           v1::UpdateInversesResponse* response) override;

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Update(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* UpdateOnce(grpc::CallbackServerContext* context,
                                       const v1::UpdateOnceRequest* request,
                                       v1::UpdateOnceResponse* response) override;
  grpc::ServerWriteReactor<v1::ReadResponse>* Read(grpc::CallbackServerContext* context,
                                                   const v1::ReadRequest* request) override;
  grpc::ServerBidiReactor<v1::MultiplyRequest, v1::MultiplyResponse>* Multiply(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;

 private:
  Guard& guard_;
  FactorCalls calls_;
  core::FactorRegistry& registry_;
  SessionTable& sessions_;
  OnceTable& once_calls_;
  const ReadEnvironment read_environment_;
  const SharedMemoryDoor* const door_;
  CallMetrics* const metrics_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_FACTOR_SERVICE_H_
