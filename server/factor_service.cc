#include "server/factor_service.h"

#include "server/multiply_stream.h"
#include "server/read_stream.h"
#include "server/status.h"
#include "server/update_stream.h"
#include "server/watch_stream.h"

namespace fisherd::server {
namespace {

grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

grpc::Status FactorService::CreateFactor(grpc::ServerContext*,
                                         const v1::CreateFactorRequest* request,
                                         v1::CreateFactorResponse* response) {
  return ToGrpcStatus(calls_.CreateFactor(*request, *response));
}

grpc::ServerUnaryReactor* FactorService::DescribeFactor(grpc::CallbackServerContext* context,
                                                        const v1::DescribeFactorRequest* request,
                                                        v1::DescribeFactorResponse* response) {
  return Finish(context, calls_.DescribeFactor(*request, *response));
}

grpc::ServerUnaryReactor* FactorService::ListFactors(grpc::CallbackServerContext* context,
                                                     const v1::ListFactorsRequest* request,
                                                     v1::ListFactorsResponse* response) {
  return Finish(context, calls_.ListFactors(*request, *response));
}

grpc::Status FactorService::DeleteFactor(grpc::ServerContext*,
                                         const v1::DeleteFactorRequest* request,
                                         v1::DeleteFactorResponse*) {
  return ToGrpcStatus(calls_.DeleteFactor(*request));
}

grpc::Status FactorService::ResetFactor(grpc::ServerContext*, const v1::ResetFactorRequest* request,
                                        v1::ResetFactorResponse* response) {
  return ToGrpcStatus(calls_.ResetFactor(*request, *response));
}

grpc::Status FactorService::SetTowers(grpc::ServerContext*, const v1::SetTowersRequest* request,
                                      v1::SetTowersResponse* response) {
  return ToGrpcStatus(calls_.SetTowers(*request, *response));
}

grpc::Status FactorService::SetDamping(grpc::ServerContext*, const v1::SetDampingRequest* request,
                                       v1::SetDampingResponse*) {
  return ToGrpcStatus(calls_.SetDamping(*request));
}

grpc::ServerUnaryReactor* FactorService::ListDampings(grpc::CallbackServerContext* context,
                                                      const v1::ListDampingsRequest* request,
                                                      v1::ListDampingsResponse* response) {
  return Finish(context, calls_.ListDampings(*request, *response));
}

grpc::Status FactorService::DeleteDamping(grpc::ServerContext*,
                                          const v1::DeleteDampingRequest* request,
                                          v1::DeleteDampingResponse*) {
  return ToGrpcStatus(calls_.DeleteDamping(*request));
}

grpc::Status FactorService::Register(grpc::ServerContext*, const v1::RegisterRequest* request,
                                     v1::RegisterResponse* response) {
  return ToGrpcStatus(calls_.Register(*request, *response));
}

grpc::Status FactorService::Unregister(grpc::ServerContext*, const v1::UnregisterRequest* request,
                                       v1::UnregisterResponse*) {
  return ToGrpcStatus(calls_.Unregister(*request));
}

grpc::ServerUnaryReactor* FactorService::UpdateInverses(grpc::CallbackServerContext* context,
                                                        const v1::UpdateInversesRequest* request,
                                                        v1::UpdateInversesResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  calls_.UpdateInverses(*request, response, [reactor](const absl::Status& status) {
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* FactorService::Update(
    grpc::CallbackServerContext* context) {
  if (door_ == nullptr) return UpdateStream::Start(registry_, sessions_, nullptr);
  context->AddInitialMetadata(kSharedMemoryKey, door_->announcement());
  return UpdateStream::Start(registry_, sessions_, &door_->regions());
}

grpc::ServerUnaryReactor* FactorService::UpdateOnce(grpc::CallbackServerContext* context,
                                                    const v1::UpdateOnceRequest* request,
                                                    v1::UpdateOnceResponse* response) {
  return server::UpdateOnce::Start(registry_, once_calls_, context, request, response);
}

grpc::ServerWriteReactor<v1::ReadResponse>* FactorService::Read(grpc::CallbackServerContext*,
                                                                const v1::ReadRequest* request) {
  return new ReadStream(read_environment_, *request);
}

grpc::ServerBidiReactor<v1::MultiplyRequest, v1::MultiplyResponse>* FactorService::Multiply(
    grpc::CallbackServerContext*) {
  return new MultiplyStream(read_environment_);
}

grpc::ServerWriteReactor<v1::WatchResponse>* FactorService::Watch(grpc::CallbackServerContext*,
                                                                  const v1::WatchRequest* request) {
  return WatchStream::Start(registry_, *request);
}

}  // namespace fisherd::server
