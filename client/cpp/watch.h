// Listening to what happens to factors.

#ifndef FISHERD_CLIENT_WATCH_H_
#define FISHERD_CLIENT_WATCH_H_

#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {

// As Client::Watch. Blocks.
absl::Status WatchEvents(v1::FactorService::StubInterface& stub, std::string_view prefix,
                         const std::function<bool(const v1::FactorEvent&)>& callback);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_WATCH_H_
