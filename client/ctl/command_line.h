// What fisherctl was asked to do.

#ifndef FISHERD_CTL_COMMAND_LINE_H_
#define FISHERD_CTL_COMMAND_LINE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fisherd::ctl {

struct CommandLine {
  std::string command;                 // "damping set"; empty for help on all of them
  std::vector<std::string> arguments;  // "mlp/0"
  std::map<std::string, std::string, std::less<>> flags;  // {"exponent", "-0.5"}; "" for --json

  bool has(std::string_view flag) const { return flags.contains(flag); }
};

// Parses the arguments after the program's name. Flags may stand anywhere, as --flag VALUE or
// --flag=VALUE; `--` ends them. INVALID_ARGUMENT with a sentence for the user: unknown commands and
// flags, missing and superfluous arguments. With --help only the command is looked at.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

// The help for a command, or for all of them if empty.
std::string Help(std::string_view command);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_COMMAND_LINE_H_
