#include "server/options.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/command_line.h"

namespace fisherd::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<CommandLine> Parse(const std::vector<const char*>& arguments) {
  Options defaults;
  defaults.state_budget = 100;
  defaults.batch_budget = 50;
  return ParseCommandLine(
      arguments, [](const std::string&) { return nullptr; }, defaults);
}

TEST(OptionsTest, WithoutFlagsTheDefaultsStand) {
  const auto line = Parse({});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->action, CommandLine::Action::kServe);
  EXPECT_THAT(line->options.listen, ElementsAre("127.0.0.1:7600"));
  EXPECT_EQ(line->options.state_budget, 100);
  EXPECT_EQ(line->options.window, 4);
  EXPECT_EQ(line->options.read_stall_timeout, absl::Seconds(60));
}

TEST(OptionsTest, EveryFlagReachesItsField) {
  const auto line =
      Parse({"--listen=[::]:0", "--insecure", "--port-file", "/tmp/port", "--state-budget=4GiB",
             "--batch-budget", "512MiB", "--compute-threads=3", "--window=7", "--max-streams=9",
             "--read-stall-timeout=1m30s", "--shutdown-grace=0s", "--log-level=warning",
             "--shared-memory=/run/memory", "--shared-memory-limit=2GiB", "--backend=cuda",
             "--gpu-memory=40GiB", "--gpu-tf32"});
  ASSERT_TRUE(line.ok()) << line.status();
  const Options& options = line->options;
  EXPECT_THAT(options.listen, ElementsAre("[::]:0"));
  EXPECT_EQ(options.port_file, "/tmp/port");
  EXPECT_EQ(options.state_budget, int64_t{4} << 30);
  EXPECT_EQ(options.batch_budget, int64_t{512} << 20);
  EXPECT_EQ(options.compute_threads, 3);
  EXPECT_EQ(options.window, 7);
  EXPECT_EQ(options.max_streams, 9);
  EXPECT_EQ(options.read_stall_timeout, absl::Seconds(90));
  EXPECT_EQ(options.shutdown_grace, absl::ZeroDuration());
  EXPECT_EQ(options.log_level, LogLevel::kWarning);
  EXPECT_EQ(options.shared_memory, "/run/memory");
  EXPECT_EQ(options.shared_memory_limit, int64_t{2} << 30);
  EXPECT_EQ(options.backend, core::BackendChoice::kCuda);
  EXPECT_EQ(options.gpu_memory, int64_t{40} << 30);
  EXPECT_TRUE(options.gpu_tf32);
}

TEST(OptionsTest, ListensAtSeveralAddresses) {
  const auto line = Parse({"--listen=127.0.0.1:1,unix:/run/f.sock", "--listen", "[::1]:2"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->options.listen, ElementsAre("127.0.0.1:1", "unix:/run/f.sock", "[::1]:2"));
}

TEST(OptionsTest, HelpAndVersionAreActions) {
  EXPECT_EQ(Parse({"--help"})->action, CommandLine::Action::kShowHelp);
  EXPECT_EQ(Parse({"--version"})->action, CommandLine::Action::kShowVersion);
}

struct BadLine {
  std::vector<const char*> arguments;
  const char* message;
};

TEST(OptionsTest, WhatIsWrongIsNamed) {
  const BadLine lines[] = {
      {{"--lisen=x:1"}, "unknown flag --lisen; did you mean --listen?"},
      {{"--batch-bugdet=1"}, "did you mean --batch-budget?"},
      {{"serve"}, "unexpected argument 'serve'"},
      {{"-h"}, "unexpected argument '-h'"},
      {{"--"}, "unexpected argument '--'"},
      {{"--window"}, "--window needs a N"},
      {{"--shared-memory="}, "--shared-memory=: expected a path of 1 to 107 bytes"},
      {{"--help=yes"}, "--help takes no value"},
      {{"--listen=localhost"}, "--listen=localhost: expected HOST:PORT"},
      {{"--listen=:80"}, "expected HOST:PORT"},
      {{"--listen=host:65536"}, "port from 0 to 65535"},
      {{"--listen=::1:7600"}, "IPv6 address in brackets"},
      {{"--listen=127.0.0.1:0,"}, "expected HOST:PORT"},
      {{"--listen=unix:"}, "unix:PATH with a path of 1 to "},
      {{"--listen=unix-abstract:f"}, "expected HOST:PORT"},
      {{"--http=unix:/x"}, "--http=unix:/x: expected HOST:PORT"},
      {{"--http=7601"}, "expected HOST:PORT"},
      {{"--port-file="}, "expected the path of a file"},
      {{"--state-budget=0"}, "expected a positive number of bytes"},
      {{"--state-budget=4GB"}, "expected a positive number of bytes"},
      {{"--state-budget=-1"}, "expected a positive number of bytes"},
      {{"--batch-budget=9000000000GiB"}, "expected a positive number of bytes"},
      {{"--compute-threads=0"}, "--compute-threads=0: expected a whole number from 1 to 1024"},
      {{"--window=1.5"}, "expected a whole number"},
      {{"--max-streams=many"}, "expected a whole number"},
      {{"--read-stall-timeout=0s"}, "expected a duration such as 60s or 1m30s, from 1ms"},
      {{"--read-stall-timeout=60"}, "expected a duration"},
      {{"--shutdown-grace=-1s"}, "expected a duration"},
      {{"--shutdown-grace=inf"}, "to 24h"},
      {{"--log-level=loud"}, "expected debug, info, warning or error"},
      {{"--log-format=xml"}, "expected text or json"},
      {{"--insecure=yes"}, "expected true or false"},
      {{"--tls-cert="}, "expected the path of a file"},
      {{"--tls-cert=a"}, "tls-cert and tls-key go together"},
      {{"--tls-client-ca=a"}, "tls-client-ca needs tls-cert and tls-key"},
      {{"--listen=127.0.0.1:0,[::]:1"}, "listen: [::]:1 can be reached by other machines"},
  };
  for (const BadLine& line : lines) {
    const auto parsed = Parse(line.arguments);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << line.arguments[0];
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(line.message));
  }
}

TEST(OptionsTest, HelpHasEveryFlagOnALineOfItsOwn) {
  const std::string help = HelpText();
  for (const char* flag :
       {"listen", "port-file", "state-budget", "batch-budget", "shared-memory",
        "shared-memory-limit", "compute-threads", "window", "max-streams", "read-stall-timeout",
        "shutdown-grace", "log-level", "version", "help"}) {
    EXPECT_THAT(help, HasSubstr(std::string("\n  --") + flag));
  }
}

TEST(OptionsTest, DefaultsFitTheMachine) {
  const Options options = DefaultOptions();
  EXPECT_GE(options.compute_threads, 1);
  EXPECT_GE(options.state_budget, int64_t{512} << 20);
  EXPECT_EQ(options.batch_budget, options.state_budget / 2);
  EXPECT_EQ(options.shared_memory, "");
  EXPECT_EQ(options.shared_memory_limit, options.batch_budget);
}

TEST(OptionsTest, BytesGoBothWays) {
  for (const auto& [text, bytes] : {std::pair<const char*, int64_t>{"1", 1},
                                    {"1023", 1023},
                                    {"1KiB", 1024},
                                    {"1025KiB", 1025 * 1024},
                                    {"3TiB", int64_t{3} << 40}}) {
    const auto parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes);
    EXPECT_EQ(FormatBytes(bytes), text);
  }
}

TEST(OptionsTest, LocalIsToldFromTheWorld) {
  for (const char* address :
       {"127.0.0.1:7600", "127.9.9.9:1", "localhost:0", "[::1]:7600", "unix:/run/f.sock"}) {
    EXPECT_TRUE(IsLocal(address)) << address;
  }
  for (const char* address : {"0.0.0.0:7600", "[::]:7600", "10.0.0.1:1", "fisher.example:1"}) {
    EXPECT_FALSE(IsLocal(address)) << address;
  }
}

}  // namespace
}  // namespace fisherd::server
