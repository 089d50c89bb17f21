#include "client/ctl/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fisherd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

CommandLine Parsed(const std::vector<std::string>& arguments) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(arguments);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? *line : CommandLine();
}

TEST(CommandLineTest, TakesFlagsAnywhereAndInBothForms) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"--server", "host:1", "matpower", "mlp/0", "--exponent", "-0.5", "--damping=global"},
           {"matpower", "--exponent=-0.5", "--damping", "global", "mlp/0", "--server=host:1"}}) {
    const CommandLine line = Parsed(arguments);
    EXPECT_EQ(line.command, "matpower");
    EXPECT_THAT(line.arguments, ElementsAre("mlp/0"));
    EXPECT_THAT(line.flags, ElementsAre(Pair("damping", "global"), Pair("exponent", "-0.5"),
                                        Pair("server", "host:1")));
  }
}

TEST(CommandLineTest, KnowsCommandsOfTwoWords) {
  EXPECT_EQ(Parsed({"damping", "list"}).command, "damping list");
  EXPECT_THAT(Parsed({"damping", "list"}).arguments, IsEmpty());
  EXPECT_THAT(Parsed({"damping", "list", "g"}).arguments, ElementsAre("g"));
  EXPECT_THAT(Parsed({"damping", "set", "global", "-1"}).arguments, ElementsAre("global", "-1"));
}

TEST(CommandLineTest, TwoDashesEndTheFlags) {
  EXPECT_THAT(Parsed({"delete", "--", "--json"}).arguments, ElementsAre("--json"));
  EXPECT_FALSE(Parsed({"delete", "--", "--json"}).has("json"));
  EXPECT_TRUE(Parsed({"delete", "--json", "f"}).has("json"));
}

TEST(CommandLineTest, SaysWhatIsWrong) {
  const std::vector<std::pair<std::vector<std::string>, const char*>> wrong = {
      {{}, "no command"},
      {{"frobnicate", "x"}, "there is no command frobnicate"},
      {{"damping"}, "there is no command damping"},
      {{"list", "--frob"}, "there is no flag --frob"},
      {{"list", "--server"}, "--server needs a value"},
      {{"list", "--json=1"}, "--json takes no value"},
      {{"list", "a", "b"}, "list: \"b\" is one argument too many"},
      {{"describe"}, "describe needs NAME"},
      {{"damping", "set", "global"}, "damping set needs NAME VALUE"},
      {{"list", "--exponent", "1"}, "list has no flag --exponent"},
      {{"matpower", "f", "--damping", "1"}, "matpower needs --exponent E"},
      {{"matpower", "f", "--exponent", "1"}, "matpower needs --damping X"},
      {{"health", "now"}, "\"now\" is one argument too many"},
  };
  for (const auto& [arguments, message] : wrong) {
    const absl::Status status = ParseCommandLine(arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(CommandLineTest, HelpNeedsNothingElse) {
  EXPECT_EQ(Parsed({"--help"}).command, "");
  EXPECT_EQ(Parsed({"matpower", "--help"}).command, "matpower");
  EXPECT_EQ(Parsed({"damping", "set", "--help"}).command, "damping set");
  EXPECT_EQ(Parsed({"damping", "--help"}).command, "");
}

TEST(HelpTest, NamesEveryCommandAndFlag) {
  const std::string all = Help("");
  for (const char* word :
       {"list [PREFIX]", "describe NAME", "get NAME", "matpower NAME", "damping list",
        "damping set NAME VALUE", "damping delete NAME", "reset NAME", "delete NAME", "health",
        "--server ADDR", "--json", "exit code"}) {
    EXPECT_THAT(all, HasSubstr(word));
  }
  const std::string matpower = Help("matpower");
  for (const char* word : {"fisherctl matpower NAME", "--exponent E", "--damping X",
                           "--output FILE", "--server ADDR"}) {
    EXPECT_THAT(matpower, HasSubstr(word));
  }
}

}  // namespace
}  // namespace fisherd::ctl
