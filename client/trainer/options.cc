#include "client/trainer/options.h"

#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace fisherd::trainer {
namespace {

constexpr int kQuickEpochs = 5;

struct Flag {
  absl::string_view name;
  std::variant<std::string*, int*, uint32_t*, bool*> value;
};

absl::Status Set(const Flag& flag, absl::string_view text) {
  bool valid = true;
  if (auto* string = std::get_if<std::string*>(&flag.value)) {
    **string = std::string(text);
  } else if (auto* integer = std::get_if<int*>(&flag.value)) {
    valid = absl::SimpleAtoi(text, *integer) && **integer >= 0;
  } else if (auto* number = std::get_if<uint32_t*>(&flag.value)) {
    valid = absl::SimpleAtoi(text, *number);
  }
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag.name, " is \"", text, "\"; expected a number from 0"));
}

}  // namespace

const char kUsage[] = R"(usage: fisherd-trainer demo|tune [flags]

demo   trains a small network on handwritten digits with two trainer processes and a server, by
       SGD, momentum, Adam and two diagonal natural gradients, and proves that the served Fisher is
       right
tune   runs the grids from which the demo's settings were chosen

  --fisherd=PROGRAM  the server to start (fisherd)
  --server=ADDRESS   use this running server instead
  --data=FILE        the digits (client/trainer/data/digits.csv.gz)
  --out=DIR          where the picture goes (.)
  --epochs=N         passes over the training set (30)
  --seed=N           of the split, the start and the order of the batches (1)
  --quick            5 epochs
  --keep             let the server run, for fisherctl, until Ctrl-C
)";

absl::StatusOr<Options> ParseOptions(std::span<const char* const> arguments) {
  Options options;
  bool quick = false;
  const std::vector<Flag> flags = {
      {"fisherd", &options.fisherd}, {"out", &options.out},   {"keep", &options.keep},
      {"server", &options.server},   {"data", &options.data}, {"epochs", &options.epochs},
      {"seed", &options.seed},       {"quick", &quick},       {"tower", &options.tower},
      {"link", &options.link},       {"tune", &options.tune},
  };
  if (arguments.empty()) return absl::InvalidArgumentError("expected a command");
  options.command = arguments[0];
  if (options.command != "demo" && options.command != "tune" && options.command != "train") {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown command \"", options.command, "\"; expected demo or tune"));
  }
  for (size_t i = 1; i < arguments.size(); ++i) {
    const absl::string_view argument = arguments[i];
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const Flag* found = nullptr;
    for (const Flag& flag : flags) {
      if (name == absl::StrCat("--", flag.name)) found = &flag;
    }
    if (found == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument \"", argument, "\""));
    }
    if (bool* const* flag = std::get_if<bool*>(&found->value)) {
      if (equals != argument.npos) {
        return absl::InvalidArgumentError(absl::StrCat(name, " takes no value"));
      }
      **flag = true;
      continue;
    }
    if (equals == argument.npos && i + 1 == arguments.size()) {
      return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
    }
    const absl::string_view value =
        equals == argument.npos ? arguments[++i] : argument.substr(equals + 1);
    if (absl::Status status = Set(*found, value); !status.ok()) return status;
  }
  if (options.epochs < 1) return absl::InvalidArgumentError("--epochs is 0; expected at least 1");
  if (quick) options.epochs = kQuickEpochs;
  return options;
}

}  // namespace fisherd::trainer
