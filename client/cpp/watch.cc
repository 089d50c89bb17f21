#include "client/cpp/watch.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/channel.h"
#include "client/cpp/errors.h"

namespace fisherd {

absl::Status WatchEvents(v1::FactorService::StubInterface& stub, std::string_view prefix,
                         const std::function<bool(const v1::FactorEvent&)>& callback) {
  v1::WatchRequest request;
  request.set_prefix(std::string(prefix));
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(10));
  while (true) {
    grpc::ClientContext context;
    const auto stream = stub.Watch(&context, request);
    v1::WatchResponse response;
    while (stream->Read(&response)) {
      backoff.Reset();
      for (const v1::FactorEvent& event : response.events()) {
        if (callback(event)) continue;
        context.TryCancel();
        stream->Finish();
        return absl::OkStatus();
      }
    }
    const absl::Status end = FromGrpc(stream->Finish());
    if (!MayPass(end)) return end;
    absl::SleepFor(backoff.Next(end));
  }
}

}  // namespace fisherd
