#include "server/factor_service.h"

#include <utility>

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

// A call that ends before it begins.
template <typename Reactor>
Reactor* Refuse(const absl::Status& status) {
  class Refused final : public Reactor {
   public:
    explicit Refused(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
    void OnDone() override { delete this; }
  };
  return new Refused(status);
}

}  // namespace

grpc::Status FactorService::CreateFactor(grpc::ServerContext* context,
                                         const v1::CreateFactorRequest* request,
                                         v1::CreateFactorResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->name());
  if (!caller.ok()) return ToGrpcStatus(caller.status());
  return ToGrpcStatus(guard_.WithinQuota(
      *caller, registry_, [&] { return calls_.GrowthOf(*request); },
      [&] { return calls_.CreateFactor(*request, *response); }));
}

grpc::ServerUnaryReactor* FactorService::DescribeFactor(grpc::CallbackServerContext* context,
                                                        const v1::DescribeFactorRequest* request,
                                                        v1::DescribeFactorResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kRead, request->name());
  return Finish(context,
                caller.ok() ? calls_.DescribeFactor(*request, *response) : caller.status());
}

grpc::ServerUnaryReactor* FactorService::ListFactors(grpc::CallbackServerContext* context,
                                                     const v1::ListFactorsRequest* request,
                                                     v1::ListFactorsResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kRead, request->prefix());
  return Finish(context, caller.ok() ? calls_.ListFactors(*request, *response) : caller.status());
}

grpc::Status FactorService::DeleteFactor(grpc::ServerContext* context,
                                         const v1::DeleteFactorRequest* request,
                                         v1::DeleteFactorResponse*) {
  return ToGrpcStatus(guard_.Administer(*context, "DeleteFactor", request->name(),
                                        [&] { return calls_.DeleteFactor(*request); }));
}

grpc::Status FactorService::ResetFactor(grpc::ServerContext* context,
                                        const v1::ResetFactorRequest* request,
                                        v1::ResetFactorResponse* response) {
  return ToGrpcStatus(guard_.Administer(*context, "ResetFactor", request->name(),
                                        [&] { return calls_.ResetFactor(*request, *response); }));
}

grpc::Status FactorService::SetTowers(grpc::ServerContext* context,
                                      const v1::SetTowersRequest* request,
                                      v1::SetTowersResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->name());
  return ToGrpcStatus(caller.ok() ? calls_.SetTowers(*request, *response) : caller.status());
}

grpc::Status FactorService::SetDamping(grpc::ServerContext* context,
                                       const v1::SetDampingRequest* request,
                                       v1::SetDampingResponse*) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->name());
  return ToGrpcStatus(caller.ok() ? calls_.SetDamping(*request) : caller.status());
}

grpc::ServerUnaryReactor* FactorService::ListDampings(grpc::CallbackServerContext* context,
                                                      const v1::ListDampingsRequest* request,
                                                      v1::ListDampingsResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kRead, request->prefix());
  return Finish(context, caller.ok() ? calls_.ListDampings(*request, *response) : caller.status());
}

grpc::Status FactorService::DeleteDamping(grpc::ServerContext* context,
                                          const v1::DeleteDampingRequest* request,
                                          v1::DeleteDampingResponse*) {
  return ToGrpcStatus(guard_.Administer(*context, "DeleteDamping", request->name(),
                                        [&] { return calls_.DeleteDamping(*request); }));
}

grpc::Status FactorService::Register(grpc::ServerContext* context,
                                     const v1::RegisterRequest* request,
                                     v1::RegisterResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->factor());
  if (!caller.ok()) return ToGrpcStatus(caller.status());
  return ToGrpcStatus(guard_.WithinQuota(
      *caller, registry_, [&] { return calls_.GrowthOf(*request); },
      [&] { return calls_.Register(*request, *response); }));
}

grpc::Status FactorService::Unregister(grpc::ServerContext* context,
                                       const v1::UnregisterRequest* request,
                                       v1::UnregisterResponse*) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->factor());
  return ToGrpcStatus(caller.ok() ? calls_.Unregister(*request) : caller.status());
}

grpc::ServerUnaryReactor* FactorService::UpdateInverses(grpc::CallbackServerContext* context,
                                                        const v1::UpdateInversesRequest* request,
                                                        v1::UpdateInversesResponse* response) {
  // Without a factor it is for all, as the empty prefix is.
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->factor());
  if (!caller.ok()) return Finish(context, caller.status());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  calls_.UpdateInverses(*request, response, [reactor](const absl::Status& status) {
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* FactorService::Update(
    grpc::CallbackServerContext* context) {
  auto counted = metrics_ == nullptr ? nullptr : metrics_->Count();
  const auto refuse = [&](const absl::Status& status) {
    if (counted != nullptr) counted->End(ToGrpcStatus(status).error_code());
    return Refuse<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>>(status);
  };
  const auto caller = guard_.Enter(*context);
  if (!caller.ok()) return refuse(caller.status());
  auto place = guard_.TakeStream(*caller);
  if (!place.ok()) return refuse(place.status());
  if (door_ != nullptr) context->AddInitialMetadata(kSharedMemoryKey, door_->announcement());
  return UpdateStream::Start(registry_, sessions_, door_ == nullptr ? nullptr : &door_->regions(),
                             *caller, *std::move(place), std::move(counted));
}

grpc::ServerUnaryReactor* FactorService::UpdateOnce(grpc::CallbackServerContext* context,
                                                    const v1::UpdateOnceRequest* request,
                                                    v1::UpdateOnceResponse* response) {
  const auto caller = guard_.Enter(*context, Permission::kUpdate, request->header().factor());
  if (!caller.ok()) return Finish(context, caller.status());
  auto place = guard_.TakeStream(*caller);
  if (!place.ok()) return Finish(context, place.status());
  return server::UpdateOnce::Start(registry_, once_calls_, context, request, response,
                                   *std::move(place));
}

grpc::ServerWriteReactor<v1::ReadResponse>* FactorService::Read(
    grpc::CallbackServerContext* context, const v1::ReadRequest* request) {
  const auto caller = guard_.Enter(*context, Permission::kRead, request->factor());
  if (!caller.ok()) return Refuse<grpc::ServerWriteReactor<v1::ReadResponse>>(caller.status());
  return new ReadStream(read_environment_, *request);
}

grpc::ServerBidiReactor<v1::MultiplyRequest, v1::MultiplyResponse>* FactorService::Multiply(
    grpc::CallbackServerContext* context) {
  const auto caller = guard_.Enter(*context);
  if (caller.ok()) return new MultiplyStream(read_environment_, *caller);
  return Refuse<grpc::ServerBidiReactor<v1::MultiplyRequest, v1::MultiplyResponse>>(
      caller.status());
}

grpc::ServerWriteReactor<v1::WatchResponse>* FactorService::Watch(
    grpc::CallbackServerContext* context, const v1::WatchRequest* request) {
  const auto caller = guard_.Enter(*context, Permission::kRead, request->prefix());
  if (!caller.ok()) return Refuse<grpc::ServerWriteReactor<v1::WatchResponse>>(caller.status());
  return WatchStream::Start(registry_, *request);
}

}  // namespace fisherd::server
