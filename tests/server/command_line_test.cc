#include "server/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/test_path.h"

namespace fisherd::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CommandLineTest : public testing::Test {
 protected:
  absl::StatusOr<CommandLine> Parse(const std::vector<const char*>& arguments) {
    const Environment environment = [this](const std::string& name) {
      const auto found = environment_.find(name);
      return found == environment_.end() ? nullptr : found->second.c_str();
    };
    return ParseCommandLine(arguments, environment, Options());
  }
  void WriteFile(const std::string& text) { std::ofstream(path_) << text; }
  std::string ErrorOf(const std::vector<const char*>& arguments) {
    const auto line = Parse(arguments);
    EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(line.status().message());
  }

  const std::string path_ = TestPath();
  const std::string config_ = "--config=" + path_;
  std::map<std::string, std::string> environment_;
};

TEST_F(CommandLineTest, FlagsBeforeEnvironmentBeforeFile) {
  WriteFile("window: 2\nmax-streams: 20\nstate-budget: 2MiB\n");
  environment_ = {{"FISHERD_WINDOW", "3"}, {"FISHERD_MAX_STREAMS", "30"}};
  const auto line = Parse({config_.c_str(), "--window=4"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.window, 4);
  EXPECT_EQ(line->options.max_streams, 30);
  EXPECT_EQ(line->options.state_budget, 2 << 20);
}

TEST_F(CommandLineTest, AListIsOneSources) {
  WriteFile("listen: [127.0.0.1:1, unix:/a]\nmetrics-factor-prefix:\n  - a/\n  - b/\n");
  const auto from_file = Parse({config_.c_str()});
  ASSERT_TRUE(from_file.ok()) << from_file.status();
  EXPECT_THAT(from_file->options.listen, ElementsAre("127.0.0.1:1", "unix:/a"));
  EXPECT_THAT(from_file->options.metrics_factor_prefixes, ElementsAre("a/", "b/"));
  const auto from_flag = Parse({config_.c_str(), "--listen=[::1]:2"});
  ASSERT_TRUE(from_flag.ok()) << from_flag.status();
  EXPECT_THAT(from_flag->options.listen, ElementsAre("[::1]:2"));
}

TEST_F(CommandLineTest, TheEnvironmentNamesTheFileToo) {
  WriteFile("window: 2\n");
  environment_ = {{"FISHERD_CONFIG", path_}};
  EXPECT_EQ(Parse({})->options.window, 2);
}

TEST_F(CommandLineTest, VariablesOfOthersAreLeftAlone) {
  environment_ = {{"FISHERD_PORT", "tcp://10.0.0.1:7600"}, {"FISHERD_SERVICE_HOST", "10.0.0.1"}};
  EXPECT_TRUE(Parse({}).ok());
}

TEST_F(CommandLineTest, WhatIsOnOrOffTakesAWordOrNone) {
  EXPECT_TRUE(Parse({"--channelz"})->options.channelz);
  EXPECT_FALSE(Parse({"--channelz=false"})->options.channelz);
  environment_ = {{"FISHERD_CHANNELZ", "true"}};
  EXPECT_TRUE(Parse({})->options.channelz);
  EXPECT_FALSE(Parse({"--channelz=false"})->options.channelz);
}

TEST_F(CommandLineTest, WhatIsWrongIsSaidWhere) {
  EXPECT_THAT(ErrorOf({"--config=/no/such.yaml"}), HasSubstr("cannot read /no/such.yaml"));
  const std::pair<const char*, const char*> files[] = {
      {"window: 2\n\nstate-bugdet: 4GiB\n",
       ":3: unknown key state-bugdet; did you mean state-budget?"},
      {"# a comment\nwindow: 0\n", ":2: window: 0: expected a whole number from 1 to 1024"},
      {"window: {a: 1}\n", ":1: window: expected N"},
      {"- window\n", ":1: expected lines such as"},
      {"window: [1\n", path_.c_str()},
      {"config: x\n", ":1: unknown key config"},
  };
  for (const auto& [text, message] : files) {
    WriteFile(text);
    EXPECT_THAT(ErrorOf({config_.c_str()}), HasSubstr(message)) << text;
  }
  environment_ = {{"FISHERD_WINDOW", "many"}};
  EXPECT_THAT(ErrorOf({}), HasSubstr("FISHERD_WINDOW=many: expected a whole number"));
}

TEST_F(CommandLineTest, AnEmptyFileSaysNothing) {
  WriteFile("# nothing\n");
  EXPECT_TRUE(Parse({config_.c_str()}).ok());
}

TEST_F(CommandLineTest, CheckConfigIsAnActionAfterAll) {
  EXPECT_EQ(Parse({"--check-config"})->action, CommandLine::Action::kCheckConfig);
  EXPECT_FALSE(Parse({"--check-config", "--window=0"}).ok());
}

TEST_F(CommandLineTest, KnowsWhatNeedsARestart) {
  const auto before = Parse({"--window=3", "--log-level=info"});
  const auto after = Parse({"--max-streams=5", "--log-level=error"});
  EXPECT_THAT(NeedRestart(*before, *after), ElementsAre("window", "max-streams"));
  EXPECT_THAT(NeedRestart(*before, *before), ElementsAre());
}

// A Service of this name makes Kubernetes set FISHERD_PORT: no setting may mean that.
TEST_F(CommandLineTest, NoSettingIsNamedAsKubernetesNamesThings) {
  EXPECT_EQ(FindSetting("port"), nullptr);
  EXPECT_EQ(FindSetting("service-host"), nullptr);
  EXPECT_EQ(FindSetting("service-port"), nullptr);
}

}  // namespace
}  // namespace fisherd::server
