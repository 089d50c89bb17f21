#include "client/trainer/data.h"

#include <zlib.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_path.h"

namespace fisherd::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A line of 64 pixels that are all `pixel`, and a label.
std::string Line(const std::string& pixel, const std::string& label) {
  std::string line;
  for (int i = 0; i < 64; ++i) line += pixel + ",";
  return line + label + "\n";
}

std::string WriteFile(const std::string& text) {
  const std::string path = TestPath() + ".csv";
  std::ofstream(path) << text;
  return path;
}

TEST(ReadDigitsTest, ScalesPixelsAndTakesLabels) {
  absl::StatusOr<Examples> digits = ReadDigits(WriteFile(Line("16", "3") + Line("4", "9")));
  ASSERT_TRUE(digits.ok()) << digits.status();
  EXPECT_THAT(digits->labels, ElementsAre(3, 9));
  ASSERT_EQ(digits->inputs.rows(), 2);
  ASSERT_EQ(digits->inputs.cols(), 64);
  EXPECT_TRUE((digits->inputs.row(0).array() == 1).all());
  EXPECT_TRUE((digits->inputs.row(1).array() == 0.25f).all());
}

TEST(ReadDigitsTest, ReadsGzip) {
  const std::string path = TestPath();
  const std::string text = Line("8", "1");
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, text.data(), text.size()), static_cast<int>(text.size()));
  gzclose(file);
  absl::StatusOr<Examples> digits = ReadDigits(path);
  ASSERT_TRUE(digits.ok()) << digits.status();
  EXPECT_EQ(digits->size(), 1);
  EXPECT_EQ(digits->inputs(0, 63), 0.5f);
}

TEST(ReadDigitsTest, ReadsTheFileOfThisRepository) {
  absl::StatusOr<Examples> digits =
      ReadDigits(std::string(FISHERD_SOURCE_DIR) + "/client/trainer/data/digits.csv.gz");
  ASSERT_TRUE(digits.ok()) << digits.status();
  EXPECT_EQ(digits->size(), 1797);
  EXPECT_EQ(digits->labels[0], 0);
  EXPECT_EQ(digits->inputs(0, 2), 5 / 16.0f);
  for (int label = 0; label < 10; ++label) {
    EXPECT_GT(std::count(digits->labels.begin(), digits->labels.end(), label), 170);
  }
}

TEST(ReadDigitsTest, SaysWhichLineIsWrong) {
  for (const std::string& line : {Line("17", "3"), Line("-1", "3"), Line("x", "3"), Line("1", "10"),
                                  std::string("1,2\n"), "1," + Line("1", "3")}) {
    absl::StatusOr<Examples> digits = ReadDigits(WriteFile(Line("1", "0") + line));
    EXPECT_EQ(digits.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(digits.status().message()),
                HasSubstr("line 2: expected 64 pixels from 0 to 16 and a digit"));
  }
}

TEST(ReadDigitsTest, MissingFile) {
  absl::StatusOr<Examples> digits = ReadDigits("/nonexistent/digits.csv.gz");
  EXPECT_EQ(digits.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(digits.status().message()), HasSubstr("/nonexistent/digits.csv.gz"));
}

Examples Numbered(int count) {
  Examples examples;
  examples.inputs.resize(count, 2);
  for (int i = 0; i < count; ++i) {
    examples.inputs.row(i).setConstant(static_cast<float>(i));
    examples.labels.push_back(i);
  }
  return examples;
}

TEST(RowsTest, KeepsInputsAndLabelsTogether) {
  const std::vector<int> rows = {2, 0, 2};
  const Examples picked = Rows(Numbered(3), rows);
  EXPECT_THAT(picked.labels, ElementsAre(2, 0, 2));
  EXPECT_EQ(picked.inputs(0, 1), 2);
  EXPECT_EQ(picked.inputs(1, 0), 0);
}

TEST(SplitExamplesTest, EveryExampleIsOnOneSide) {
  const Split split = SplitExamples(Numbered(50), 40, 1);
  EXPECT_EQ(split.train.size(), 40);
  EXPECT_EQ(split.test.size(), 10);
  std::vector<int> labels = split.train.labels;
  labels.insert(labels.end(), split.test.labels.begin(), split.test.labels.end());
  std::sort(labels.begin(), labels.end());
  for (int i = 0; i < 50; ++i) EXPECT_EQ(labels[i], i);
  EXPECT_EQ(SplitExamples(Numbered(50), 40, 1).test.labels, split.test.labels);
  EXPECT_NE(SplitExamples(Numbered(50), 40, 2).test.labels, split.test.labels);
}

TEST(DarkColumnsTest, OnlyColumnsWithoutAnyLight) {
  Matrix inputs(2, 3);
  inputs << 0, 0, 1, 0, 0.5, 0;
  EXPECT_THAT(DarkColumns(inputs), ElementsAre(0));
}

}  // namespace
}  // namespace fisherd::trainer
