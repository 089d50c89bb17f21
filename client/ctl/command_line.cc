#include "client/ctl/command_line.h"

#include <algorithm>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace fisherd::ctl {
namespace {

struct Flag {
  const char* name;
  const char* value;  // "ADDR"; empty for a switch
  const char* help;
  bool required = false;
};

struct Command {
  const char* name;
  const char* arguments;  // "NAME", or "[NAME]" where it may be left out
  const char* help;
  std::vector<Flag> flags = {};
};

const std::vector<Flag>& GlobalFlags() {
  static const auto* const flags = new std::vector<Flag>{
      {"server", "ADDR", "HOST:PORT or unix:PATH (default: $FISHERD_SERVER, or localhost:7600)"},
      {"token-file", "FILE", "file with a bearer token (default: $FISHERCTL_TOKEN_FILE)"},
      {"tls", "", "encrypt, and trust the system's certificates"},
      {"tls-ca", "FILE", "encrypt, and trust these (PEM; default: $FISHERCTL_TLS_CA)"},
      {"tls-cert", "FILE", "this client's certificate (PEM; default: $FISHERCTL_TLS_CERT)"},
      {"tls-key", "FILE", "its key (PEM; default: $FISHERCTL_TLS_KEY)"},
      {"tls-server-name", "NAME", "what the server's certificate names it, if not the address"},
      {"json", "", "answer in JSON"},
      {"help", "", "say how this is used"},
      {"version", "", "print the version"},
  };
  return *flags;
}

const std::vector<Command>& Commands() {
  static const Flag output = {"output", "FILE",
                              "write the elements to FILE, in NumPy's .npy format"};
  static const auto* const commands = new std::vector<Command>{
      {"list", "[PREFIX]", "list factors, those whose names start with PREFIX"},
      {"describe", "NAME", "say everything about a factor except its elements"},
      {"watch",
       "[PREFIX]",
       "print what happens to factors, as it happens",
       {{"count", "N", "end after N events"}}},
      {"get", "NAME", "read a factor's covariance", {output}},
      {"matpower",
       "NAME",
       "read (covariance + damping)^exponent",
       {{"exponent", "E", "the exponent", true},
        {"damping", "X", "a number, or the name of a damping function", true},
        output}},
      {"damping list", "[PREFIX]", "list damping functions"},
      {"damping set", "NAME VALUE", "set a damping function"},
      {"damping delete", "NAME", "remove a damping function"},
      {"snapshot", "[PREFIX]", "save what has changed, and wait until it is durable"},
      {"generations", "NAME", "list what a factor can be restored to"},
      {"restore",
       "NAME",
       "make a factor what it was, under a new incarnation",
       {{"generation", "N", "the number that `generations` says", true}}},
      {"export", "NAME|PREFIX/ FILE|DIR",
       "write a factor to a safetensors file, or those under PREFIX/ into a directory"},
      {"import",
       "FILE|DIR",
       "make factors of exported files",
       {{"name", "NAME", "of a file: under this name, not its own"},
        {"replace", "", "take the place of factors that there are"}}},
      {"backup", "NAME", "make a copy of the data directory, in its backups/NAME"},
      {"reset", "NAME", "put a factor back to its initial covariance"},
      {"delete", "NAME", "remove a factor"},
      {"health", "", "succeed if the server is serving"},
  };
  return *commands;
}

const Command* FindCommand(std::string_view name) {
  for (const Command& command : Commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

const Flag* FindFlag(const std::vector<Flag>& flags, std::string_view name) {
  const auto found =
      std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.name == name; });
  return found == flags.end() ? nullptr : &*found;
}

// Whether any command has the flag: it may stand before the command's name.
const Flag* FindFlagAnywhere(std::string_view name) {
  if (const Flag* flag = FindFlag(GlobalFlags(), name)) return flag;
  for (const Command& command : Commands()) {
    if (const Flag* flag = FindFlag(command.flags, name)) return flag;
  }
  return nullptr;
}

// Separates flags and words.
absl::StatusOr<CommandLine> Scan(std::span<const std::string> arguments) {
  CommandLine line;
  while (!arguments.empty()) {
    const std::string argument = arguments.front();
    arguments = arguments.subspan(1);
    if (argument == "--") {
      line.arguments.insert(line.arguments.end(), arguments.begin(), arguments.end());
      break;
    }
    if (!argument.starts_with("--")) {
      line.arguments.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals - 2);
    const Flag* flag = FindFlagAnywhere(name);
    if (flag == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("there is no flag --", name));
    }
    const bool wants_value = *flag->value != '\0';
    std::string& value = line.flags[name];
    if (equals != std::string::npos) {
      if (!wants_value) {
        return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
      }
      value = argument.substr(equals + 1);
    } else if (wants_value) {
      if (arguments.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
      }
      value = arguments.front();
      arguments = arguments.subspan(1);
    }
  }
  return line;
}

absl::Status Check(const Command& command, const CommandLine& line) {
  const std::string_view wanted = command.arguments;
  const size_t most = wanted.empty() ? 0 : 1 + std::count(wanted.begin(), wanted.end(), ' ');
  const size_t least = wanted.starts_with('[') ? 0 : most;
  if (line.arguments.size() < least) {
    return absl::InvalidArgumentError(absl::StrCat(command.name, " needs ", command.arguments));
  }
  if (line.arguments.size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(command.name, ": \"", line.arguments[most], "\" is one argument too many"));
  }
  for (const auto& [name, value] : line.flags) {
    if (!FindFlag(GlobalFlags(), name) && !FindFlag(command.flags, name)) {
      return absl::InvalidArgumentError(absl::StrCat(command.name, " has no flag --", name));
    }
  }
  for (const Flag& flag : command.flags) {
    if (flag.required && !line.has(flag.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(command.name, " needs --", flag.name, " ", flag.value));
    }
  }
  return absl::OkStatus();
}

void AppendFlags(const std::vector<Flag>& flags, std::string& help) {
  for (const Flag& flag : flags) {
    absl::StrAppendFormat(&help, "  %-26s %s\n", absl::StrCat("--", flag.name, " ", flag.value),
                          flag.help);
  }
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  absl::StatusOr<CommandLine> line = Scan(arguments);
  if (!line.ok()) return line.status();
  std::vector<std::string>& words = line->arguments;
  const Command* command = nullptr;
  for (size_t count = 1; count <= 2 && count <= words.size() && command == nullptr; ++count) {
    line->command = count == 1 ? words[0] : absl::StrCat(words[0], " ", words[1]);
    command = FindCommand(line->command);
    if (command != nullptr) words.erase(words.begin(), words.begin() + count);
  }
  if (command == nullptr) {
    const std::string tried = line->command;
    line->command.clear();
    if (line->has("help") || line->has("version")) return line;
    return absl::InvalidArgumentError(tried.empty() ? "no command"
                                                    : absl::StrCat("there is no command ", tried));
  }
  if (line->has("help") || line->has("version")) return line;
  if (absl::Status status = Check(*command, *line); !status.ok()) return status;
  return line;
}

std::string Help(std::string_view name) {
  const Command* command = FindCommand(name);
  std::string help;
  if (command != nullptr) {
    help = absl::StrCat("fisherctl ", command->name, *command->arguments ? " " : "",
                        command->arguments, "\n\n  ");
    absl::StrAppend(&help, command->help, "\n\nflags:\n");
    AppendFlags(command->flags, help);
  } else {
    help = "fisherctl [--server ADDR] [--json] COMMAND ...\n\ncommands:\n";
    for (const Command& each : Commands()) {
      absl::StrAppendFormat(&help, "  %-26s %s\n", absl::StrCat(each.name, " ", each.arguments),
                            each.help);
    }
    absl::StrAppend(&help, "\nexit code: 0 done, 1 the server refused or is away, 2 wrong usage\n",
                    "\nflags:\n");
  }
  AppendFlags(GlobalFlags(), help);
  return help;
}

}  // namespace fisherd::ctl
