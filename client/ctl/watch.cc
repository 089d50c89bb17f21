#include "client/ctl/watch.h"

#include <grpcpp/grpcpp.h>

#include "client/cpp/errors.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd::ctl {

absl::Status WatchFactors(const std::shared_ptr<grpc::Channel>& channel, const std::string& prefix,
                          int64_t count, const std::function<void(const v1::FactorEvent&)>& print) {
  const auto stub = v1::FactorService::NewStub(channel);
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_prefix(prefix);
  const auto stream = stub->Watch(&context, request);
  int64_t printed = 0;
  v1::WatchResponse response;
  while (stream->Read(&response)) {
    for (const v1::FactorEvent& event : response.events()) {
      print(event);
      if (++printed == count) {
        context.TryCancel();
        return absl::OkStatus();
      }
    }
  }
  return FromGrpc(stream->Finish());
}

}  // namespace fisherd::ctl
