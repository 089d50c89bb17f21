#include "server/command_line.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace fisherd::server {
namespace {

constexpr absl::string_view kConfig = "config";

// Flags that are no settings.
struct ActionFlag {
  absl::string_view name;
  absl::string_view help;
  CommandLine::Action action;
};
constexpr ActionFlag kActions[] = {
    {"check-config", "say whether the settings are good, and end",
     CommandLine::Action::kCheckConfig},
    {"version", "print the version", CommandLine::Action::kShowVersion},
    {"help", "print this", CommandLine::Action::kShowHelp},
};

// What one source says: in the order in which it says it.
struct Written {
  const Setting* setting = nullptr;
  std::string value;
  std::string where;  // for messages
};
using Layer = std::vector<Written>;

struct Arguments {
  Layer settings;
  std::string config;
  CommandLine::Action action = CommandLine::Action::kServe;
};

absl::StatusOr<Arguments> ReadArguments(std::span<const char* const> arguments) {
  Arguments read;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view name = arguments[i];
    if (!absl::ConsumePrefix(&name, "--") || name.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected argument '", arguments[i], "'; flags begin with --"));
    }
    std::optional<absl::string_view> value;
    if (const size_t equals = name.find('='); equals != absl::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const auto is_action = [&](const ActionFlag& flag) { return flag.name == name; };
    if (const auto action = std::find_if(std::begin(kActions), std::end(kActions), is_action);
        action != std::end(kActions)) {
      if (value) return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
      read.action = action->action;
      continue;
    }
    const Setting* const setting = FindSetting(name);
    if (setting == nullptr && name != kConfig) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name, "; did you mean --",
                                                     NearestSetting(name).name, "?"));
    }
    if (!value && setting != nullptr && setting->value.empty()) value = "true";
    if (!value) {
      if (++i == arguments.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", name, " needs a ", setting == nullptr ? "PATH" : setting->value));
      }
      value = arguments[i];
    }
    if (setting == nullptr) {
      read.config = std::string(*value);
    } else {
      read.settings.push_back(
          {setting, std::string(*value), absl::StrCat("--", name, "=", *value)});
    }
  }
  return read;
}

std::string VariableOf(absl::string_view name) {
  return absl::StrCat("FISHERD_", absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}})));
}

// Others that begin with FISHERD_ are left alone: Kubernetes makes some for every service.
Layer ReadEnvironment(const Environment& environment) {
  Layer layer;
  for (const Setting& setting : AllSettings()) {
    const std::string variable = VariableOf(setting.name);
    if (const char* value = environment(variable)) {
      layer.push_back({&setting, value, absl::StrCat(variable, "=", value)});
    }
  }
  return layer;
}

absl::StatusOr<Layer> ReadFile(const std::string& path) {
  Layer layer;
  const auto bad = [&path](const YAML::Mark& mark, const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", mark.line + 1, ": ", what...));
  };
  try {
    const YAML::Node file = YAML::LoadFile(path);
    if (file.IsNull()) return layer;
    if (!file.IsMap()) return bad(file.Mark(), "expected lines such as state-budget: 4GiB");
    for (const auto& entry : file) {
      const auto name = entry.first.as<std::string>();
      const Setting* const setting = FindSetting(name);
      if (setting == nullptr) {
        return bad(entry.first.Mark(), "unknown key ", name, "; did you mean ",
                   NearestSetting(name).name, "?");
      }
      const auto add = [&](const YAML::Node& value) {
        if (!value.IsScalar()) return false;
        layer.push_back(
            {setting, value.Scalar(),
             absl::StrCat(path, ":", value.Mark().line + 1, ": ", name, ": ", value.Scalar())});
        return true;
      };
      bool good = true;
      if (entry.second.IsSequence()) {
        for (const YAML::Node& value : entry.second) good = good && add(value);
      } else {
        good = add(entry.second);
      }
      if (!good) return bad(entry.second.Mark(), name, ": expected ", setting->value);
    }
  } catch (const YAML::BadFile&) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  } catch (const YAML::Exception& e) {
    return bad(e.mark, e.msg);
  }
  return layer;
}

// The last layer that says something of a setting has the say.
absl::Status Apply(std::span<const Layer> layers, const Options& defaults, CommandLine& line) {
  for (const Setting& setting : AllSettings()) {
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
      std::vector<std::string> values;
      for (const Written& written : *layer) {
        if (written.setting != &setting) continue;
        if (absl::Status status = setting.set(line.options, written.value); !status.ok()) {
          return absl::InvalidArgumentError(absl::StrCat(written.where, ": ", status.message()));
        }
        values.push_back(written.value);
      }
      if (values.empty()) continue;
      line.written[std::string(setting.name)] = absl::StrJoin(values, ",");
      break;
    }
  }
  if (line.options.listen.empty()) line.options.listen = defaults.listen;
  return absl::OkStatus();
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) { return std::getenv(name.c_str()); };
}

absl::StatusOr<CommandLine> ParseCommandLine(std::span<const char* const> arguments,
                                             const Environment& environment,
                                             const Options& defaults) {
  const auto read = ReadArguments(arguments);
  if (!read.ok()) return read.status();
  CommandLine line{.action = read->action, .options = defaults, .written = {}};
  if (line.action == CommandLine::Action::kShowHelp ||
      line.action == CommandLine::Action::kShowVersion) {
    return line;
  }
  std::string config = read->config;
  if (const char* variable = environment(VariableOf(kConfig)); config.empty() && variable) {
    config = variable;
  }
  std::vector<Layer> layers;
  if (!config.empty()) {
    auto file = ReadFile(config);
    if (!file.ok()) return file.status();
    layers.push_back(*std::move(file));
  }
  layers.push_back(ReadEnvironment(environment));
  layers.push_back(read->settings);
  line.options.listen.clear();  // what is written adds to it
  if (absl::Status status = Apply(layers, defaults, line); !status.ok()) return status;
  if (absl::Status status = CheckOptions(line.options); !status.ok()) return status;
  return line;
}

std::vector<std::string> NeedRestart(const CommandLine& before, const CommandLine& after) {
  std::vector<std::string> names;
  for (const Setting& setting : AllSettings()) {
    if (setting.reloads) continue;
    const auto of = [name = std::string(setting.name)](const CommandLine& line) {
      const auto found = line.written.find(name);
      return found == line.written.end() ? std::optional<std::string>() : found->second;
    };
    if (of(before) != of(after)) names.emplace_back(setting.name);
  }
  return names;
}

std::string HelpText() {
  std::string text =
      "fisherd: keeps named Fisher factors, updated by streamed batches, and serves them over "
      "gRPC.\n\nfisherd [--FLAG=VALUE ...]\n\n";
  const auto add = [&text](absl::string_view name, absl::string_view value,
                           absl::string_view help) {
    absl::StrAppendFormat(&text, "  %-34s%s\n",
                          absl::StrCat("--", name, value.empty() ? "" : "=", value), help);
  };
  add(kConfig, "PATH", "YAML file with settings, named as these flags (none)");
  for (const Setting& setting : AllSettings()) add(setting.name, setting.value, setting.help);
  for (const ActionFlag& flag : kActions) add(flag.name, "", flag.help);
  return text +
         "\nBYTES: a whole number, with KiB, MiB, GiB or TiB if wanted. A setting comes from its "
         "flag, else from\nits variable (FISHERD_STATE_BUDGET), else from the file "
         "(state-budget: 4GiB). SIGHUP reads log-level,\nlog-format and the identities again; "
         "certificates are read again by themselves.\n";
}

}  // namespace fisherd::server
