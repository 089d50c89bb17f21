// How a client's channels are set up, and when it is worth to try again.

#ifndef FISHERD_CLIENT_CHANNEL_H_
#define FISHERD_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fisherd/client.h"

namespace fisherd {

// A channel as ClientOptions have it, once a server answers. INVALID_ARGUMENT for a token that
// others could read on its way; UNAVAILABLE if none answers within connect_timeout.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectChannel(const std::string& address,
                                                              const ClientOptions& options);

// Of Client::Connect's channels: a peer that dies without a word is noticed within 30 s, one that
// comes back within 10 s, and small calls that do no harm twice are repeated by gRPC.
grpc::ChannelArguments DefaultChannelArguments();

// The call ended by what may pass: with the connection, or with a delay after which to try again.
// (RESOURCE_EXHAUSTED without one was a message that is too large.)
bool MayPass(const absl::Status& status);

// How long to wait from one attempt to the next: doubled each time, give or take a quarter.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration most) : first_(first), most_(most) {}

  // After an attempt that ended with `last`, whose own delay counts if it has one.
  absl::Duration Next(const absl::Status& last);
  // An attempt has succeeded.
  void Reset() { attempts_ = 0; }

 private:
  const absl::Duration first_;
  const absl::Duration most_;
  int attempts_ = 0;
  std::minstd_rand random_{std::random_device()()};
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_CHANNEL_H_
