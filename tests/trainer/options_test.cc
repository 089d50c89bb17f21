#include "client/trainer/options.h"

#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

absl::StatusOr<Options> Parse(std::vector<const char*> arguments) {
  return ParseOptions(arguments);
}

TEST(OptionsTest, BothSpellings) {
  absl::StatusOr<Options> options =
      Parse({"demo", "--fisherd", "/bin/fisherd", "--out=here", "--epochs=7", "--keep"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->command, "demo");
  EXPECT_EQ(options->fisherd, "/bin/fisherd");
  EXPECT_EQ(options->out, "here");
  EXPECT_EQ(options->epochs, 7);
  EXPECT_TRUE(options->keep);
  EXPECT_EQ(options->server, "");
  EXPECT_EQ(options->seed, 1);
}

TEST(OptionsTest, QuickIsFewerEpochs) {
  EXPECT_LT(Parse({"demo", "--quick"})->epochs, Parse({"demo"})->epochs);
}

TEST(OptionsTest, RefusesWhatItDoesNotKnow) {
  const auto message = [](std::vector<const char*> arguments) {
    absl::StatusOr<Options> options = ParseOptions(arguments);
    EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(options.status().message());
  };
  EXPECT_EQ(message({}), "expected a command");
  EXPECT_EQ(message({"run"}), "unknown command \"run\"; expected demo or tune");
  EXPECT_EQ(message({"demo", "--epoch=3"}), "unknown argument \"--epoch=3\"");
  EXPECT_EQ(message({"demo", "epochs"}), "unknown argument \"epochs\"");
  EXPECT_EQ(message({"demo", "--epochs"}), "--epochs needs a value");
  EXPECT_EQ(message({"demo", "--epochs=many"}), "--epochs is \"many\"; expected a number from 0");
  EXPECT_EQ(message({"demo", "--epochs=-1"}), "--epochs is \"-1\"; expected a number from 0");
  EXPECT_EQ(message({"demo", "--epochs=0"}), "--epochs is 0; expected at least 1");
  EXPECT_EQ(message({"demo", "--keep=no"}), "--keep takes no value");
}

}  // namespace
}  // namespace fisherd::trainer
