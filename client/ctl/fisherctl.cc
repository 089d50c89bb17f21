#include "client/ctl/fisherctl.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/channel.h"
#include "client/ctl/command_line.h"
#include "client/ctl/data_commands.h"
#include "client/ctl/npy.h"
#include "client/ctl/progress_bar.h"
#include "client/ctl/render.h"
#include "client/ctl/watch.h"
#include "fisherd/client.h"

namespace fisherd::ctl {
namespace {

constexpr char kDefaultServer[] = "localhost:7600";
constexpr int64_t kCorner = 5;  // rows and columns shown

// One run of a command that is known to be well-formed.
struct Context {
  const CommandLine& line;
  std::ostream& out;
  std::ostream& err;
  const bool err_is_terminal;
  const std::shared_ptr<grpc::Channel> channel;

  bool json() const { return line.has("json"); }
  const std::string& name() const { return line.arguments[0]; }
  std::string first_or_empty() const { return line.arguments.empty() ? "" : name(); }
  std::string flag(std::string_view name) const {
    const auto found = line.flags.find(name);
    return found == line.flags.end() ? "" : found->second;
  }
};

// A flag, or else a variable of the environment, or else `otherwise`.
std::string FlagOr(const CommandLine& line, std::string_view name, const char* variable,
                   const char* otherwise = "") {
  if (const auto flag = line.flags.find(name); flag != line.flags.end()) return flag->second;
  const char* const environment = std::getenv(variable);
  return environment != nullptr && *environment != '\0' ? environment : otherwise;
}

// The contents of the file that FlagOr names; nothing if it names none.
absl::Status ReadFile(const CommandLine& line, std::string_view flag, const char* variable,
                      std::string& contents) {
  const std::string path = FlagOr(line, flag, variable);
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", std::string(flag), ": cannot read anything from ", path));
  }
  contents = text.str();
  return absl::OkStatus();
}

absl::StatusOr<ClientOptions> OptionsOf(const CommandLine& line) {
  ClientOptions options{.connect_timeout = absl::Seconds(5)};
  Tls tls;
  absl::Status status = ReadFile(line, "token-file", "FISHERCTL_TOKEN_FILE", options.token);
  status.Update(ReadFile(line, "tls-ca", "FISHERCTL_TLS_CA", tls.root_certificates));
  status.Update(ReadFile(line, "tls-cert", "FISHERCTL_TLS_CERT", tls.certificate_chain));
  status.Update(ReadFile(line, "tls-key", "FISHERCTL_TLS_KEY", tls.private_key));
  if (!status.ok()) return status;
  absl::StripAsciiWhitespace(&options.token);  // an editor's line break is not part of it
  if (const auto name = line.flags.find("tls-server-name"); name != line.flags.end()) {
    tls.server_name = name->second;
  }
  if (line.has("tls") || !tls.root_certificates.empty()) options.tls = std::move(tls);
  return options;
}

std::optional<double> ParseNumber(const std::string& text) {
  double number;
  if (!absl::SimpleAtod(text, &number) || !std::isfinite(number)) return std::nullopt;
  return number;
}

absl::Status NotANumber(std::string_view what, const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), " is a finite number, not \"", text, "\""));
}

// What `get` or `matpower` reads.
absl::StatusOr<v1::Operator> OperatorOf(const CommandLine& line) {
  if (line.command == "get") return Covariance();
  const std::string& exponent = line.flags.at("exponent");
  const std::string& damping = line.flags.at("damping");
  const std::optional<double> e = ParseNumber(exponent);
  if (!e) return NotANumber("--exponent", exponent);
  const std::optional<double> value = ParseNumber(damping);
  return Matpower(*e, value ? Damping(*value) : Damping(damping));
}

void PrintDone(Context& context, std::string_view done) {
  context.out << (context.json() ? "{}" : done) << "\n";
}

absl::Status List(Client& client, Context& context) {
  absl::StatusOr<std::vector<v1::FactorInfo>> factors = client.List(context.first_or_empty());
  if (!factors.ok()) return factors.status();
  if (context.json()) {
    v1::ListFactorsResponse all;
    all.mutable_factors()->Add(factors->begin(), factors->end());
    context.out << Json(all);
  } else {
    context.out << FactorTable(*factors);
  }
  return absl::OkStatus();
}

absl::Status Describe(Client& client, Context& context) {
  const absl::StatusOr<v1::FactorInfo> factor = client.Describe(context.name());
  if (!factor.ok()) return factor.status();
  context.out << (context.json() ? Json(*factor) : FactorPage(*factor));
  return absl::OkStatus();
}

// What is printed is seen at once, though it goes to a pipe or a file.
absl::Status Watch(Context& context, int64_t count) {
  return WatchFactors(
      context.channel, context.first_or_empty(), count, [&context](const v1::FactorEvent& event) {
        context.out << (context.json() ? JsonLine(event) : EventLine(event)) << std::flush;
      });
}

template <typename Scalar>
absl::Status ReadAs(Client& client, Context& context, const v1::Operator& op) {
  absl::StatusOr<Reading<Scalar>> reading;
  {
    ProgressBar bar(context.err, context.err_is_terminal);
    reading = client.Read<Scalar>(
        context.name(), op,
        {.progress = [&bar](int64_t done, int64_t total) { bar.Update(done, total); }});
  }
  if (!reading.ok()) return reading.status();
  const LinearOperatorDiag<Scalar>& diag = reading->value;
  const int64_t rows = diag.weight().rows() + (diag.has_bias() ? 1 : 0);
  const Eigen::Map<const Matrix<Scalar>> matrix(diag.diag_part().data(), rows,
                                                diag.weight().cols());
  const std::string output = context.flag("output");
  if (!output.empty()) {
    if (absl::Status status = WriteNpy(output, matrix); !status.ok()) return status;
  }
  const Summary summary = Summarize<Scalar>(matrix);
  if (context.json()) {
    context.out << ReadingJson(reading->info, summary, output);
    return absl::OkStatus();
  }
  const Matrix<double> corner =
      matrix.topLeftCorner(std::min(rows, kCorner), std::min(matrix.cols(), kCorner))
          .template cast<double>();
  context.out << ReadingPage(absl::StrCat(context.name(), " ", OperatorName(op)), reading->info,
                             summary, corner);
  if (!output.empty()) context.out << "\nwritten to " << output << "\n";
  return absl::OkStatus();
}

// In the type of the factor's state, so that nothing is rounded or inflated.
absl::Status Read(Client& client, Context& context, const v1::Operator& op) {
  const absl::StatusOr<v1::FactorInfo> factor = client.Describe(context.name());
  if (!factor.ok()) return factor.status();
  return factor->spec().dtype() == v1::DATA_TYPE_FLOAT64 ? ReadAs<double>(client, context, op)
                                                         : ReadAs<float>(client, context, op);
}

absl::Status ListDampings(Client& client, Context& context) {
  absl::StatusOr<std::vector<v1::DampingInfo>> dampings =
      client.ListDampings(context.first_or_empty());
  if (!dampings.ok()) return dampings.status();
  if (context.json()) {
    v1::ListDampingsResponse all;
    all.mutable_dampings()->Add(dampings->begin(), dampings->end());
    context.out << Json(all);
  } else {
    context.out << DampingTable(*dampings);
  }
  return absl::OkStatus();
}

absl::Status Reset(Client& client, Context& context) {
  const absl::StatusOr<v1::FactorInfo> factor = client.Reset(context.name());
  if (!factor.ok()) return factor.status();
  context.out << (context.json() ? Json(*factor) : FactorPage(*factor));
  return absl::OkStatus();
}

// What a command was told beside names.
struct Numbers {
  v1::Operator op;    // of get and matpower
  double value = 0;   // of damping set
  int64_t count = 0;  // of watch
};

absl::StatusOr<Numbers> ParseNumbers(const CommandLine& line) {
  Numbers numbers;
  if (line.command == "get" || line.command == "matpower") {
    absl::StatusOr<v1::Operator> op = OperatorOf(line);
    if (!op.ok()) return op.status();
    numbers.op = *std::move(op);
  } else if (line.command == "damping set") {
    const std::optional<double> value = ParseNumber(line.arguments[1]);
    if (!value) return NotANumber("VALUE", line.arguments[1]);
    numbers.value = *value;
  } else if (line.has("count")) {
    const std::string& count = line.flags.at("count");
    if (!absl::SimpleAtoi(count, &numbers.count) || numbers.count < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--count is a number of events, not \"", count, "\""));
    }
  }
  return numbers;
}

absl::Status Execute(Client& client, Context& context, const Numbers& numbers) {
  const std::string& command = context.line.command;
  if (IsDataCommand(command)) {
    return RunDataCommand(context.channel, client, context.line, context.out, context.err,
                          context.err_is_terminal);
  }
  if (command == "list") return List(client, context);
  if (command == "describe") return Describe(client, context);
  if (command == "get" || command == "matpower") return Read(client, context, numbers.op);
  if (command == "watch") return Watch(context, numbers.count);
  if (command == "damping list") return ListDampings(client, context);
  if (command == "reset") return Reset(client, context);
  absl::Status status;
  std::string_view done = "deleted";
  if (command == "damping set") {
    status = client.SetDamping(context.name(), numbers.value);
    done = "set";
  } else if (command == "damping delete") {
    status = client.DeleteDamping(context.name());
  } else if (command == "delete") {
    status = client.Delete(context.name());
  } else {
    status = client.CheckHealth();
    done = "serving";
  }
  if (status.ok()) PrintDone(context, done);
  return status;
}

int Complain(std::ostream& err, const absl::Status& status) {
  err << "fisherctl: " << absl::StatusCodeToString(status.code()) << ": " << status.message();
  if (const std::string reason = ErrorReason(status); !reason.empty()) err << " (" << reason << ")";
  if (const auto delay = RetryDelay(status)) {
    err << "; try again in " << absl::FormatDuration(*delay);
  }
  err << "\n";
  return kRpcError;
}

int Misused(std::ostream& err, const absl::Status& status) {
  err << "fisherctl: " << status.message() << "\nTry fisherctl --help.\n";
  return kUsageError;
}

}  // namespace

int Run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
        bool err_is_terminal) {
  const absl::StatusOr<CommandLine> line = ParseCommandLine(arguments);
  if (!line.ok()) return Misused(err, line.status());
  if (line->has("help")) {
    out << Help(line->command);
    return kDone;
  }
  if (line->has("version")) {
    out << "fisherctl " << FISHERD_VERSION << "\n";
    return kDone;
  }
  const absl::StatusOr<Numbers> numbers = ParseNumbers(*line);
  if (!numbers.ok()) return Misused(err, numbers.status());
  const absl::StatusOr<ClientOptions> options = OptionsOf(*line);
  if (!options.ok()) return Misused(err, options.status());
  const auto channel =
      ConnectChannel(FlagOr(*line, "server", "FISHERD_SERVER", kDefaultServer), *options);
  if (!channel.ok()) return Complain(err, channel.status());
  Client client = Client::FromChannel(*channel, *options);
  Context context{.line = *line,
                  .out = out,
                  .err = err,
                  .err_is_terminal = err_is_terminal,
                  .channel = *channel};
  const absl::Status status = Execute(client, context, *numbers);
  return status.ok() ? kDone : Complain(err, status);
}

}  // namespace fisherd::ctl
