// From flags, environment and a file to options.

#ifndef FISHERD_SERVER_COMMAND_LINE_H_
#define FISHERD_SERVER_COMMAND_LINE_H_

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace fisherd::server {

struct CommandLine {
  enum class Action { kServe, kShowHelp, kShowVersion, kCheckConfig };
  Action action = Action::kServe;
  Options options;
  // What was written, by setting; of a list all, with commas between.
  std::map<std::string, std::string> written;
};

// The value of a variable; null if there is none.
using Environment = std::function<const char*(const std::string& name)>;
Environment ProcessEnvironment();

// `arguments` without the program's name. A setting comes from its flag (--state-budget=4GiB), else
// from its variable ($FISHERD_STATE_BUDGET), else from the YAML file that --config or
// $FISHERD_CONFIG names (state-budget: 4GiB), else it is the default. INVALID_ARGUMENT with a
// sentence that says where what was written, and what was expected; for an unknown name, the known
// one nearest to it; or as CheckOptions.
absl::StatusOr<CommandLine> ParseCommandLine(std::span<const char* const> arguments,
                                             const Environment& environment,
                                             const Options& defaults);

// Names of settings that differ between the two and that only a restart takes over.
std::vector<std::string> NeedRestart(const CommandLine& before, const CommandLine& after);

// What --help prints.
std::string HelpText();

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_COMMAND_LINE_H_
