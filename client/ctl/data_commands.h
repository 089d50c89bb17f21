// What fisherctl does with factors on disk.

#ifndef FISHERD_CTL_DATA_COMMANDS_H_
#define FISHERD_CTL_DATA_COMMANDS_H_

#include <grpcpp/channel.h>

#include <memory>
#include <ostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "client/ctl/command_line.h"
#include "fisherd/client.h"

namespace fisherd::ctl {

// snapshot, generations, restore, export, import, backup.
bool IsDataCommand(std::string_view command);

// Runs one of them; `client` uses the same channel. Answers go to `out`, progress to
// `err`.
absl::Status RunDataCommand(const std::shared_ptr<grpc::Channel>& channel, Client& client,
                            const CommandLine& line, std::ostream& out, std::ostream& err,
                            bool err_is_terminal);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_DATA_COMMANDS_H_
