// What happens to factors, as it happens.

#ifndef FISHERD_CTL_WATCH_H_
#define FISHERD_CTL_WATCH_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "fisherd/v1/factor_service.pb.h"

namespace fisherd::ctl {

// Gives `print` the events of the factors whose names start with `prefix`, until `count` have come
// (0: without end) or the server ends the stream.
absl::Status WatchFactors(const std::shared_ptr<grpc::Channel>& channel, const std::string& prefix,
                          int64_t count, const std::function<void(const v1::FactorEvent&)>& print);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_WATCH_H_
