#include "client/ctl/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/test_path.h"

namespace fisherd::ctl {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream contents;
  contents << file.rdbuf();
  return contents.str();
}

TEST(NpyTest, TheHeaderIsNumPys) {
  const std::string header = NpyHeader(v1::DATA_TYPE_FLOAT32, 3, 2);
  EXPECT_EQ(header.size() % 64, 0u);
  EXPECT_THAT(header, StartsWith(std::string("\x93NUMPY\x01\x00\x76\x00", 10)));  // 118 = 128 - 10
  EXPECT_THAT(header, HasSubstr("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }  "));
  EXPECT_THAT(header, EndsWith(" \n"));
  EXPECT_THAT(NpyHeader(v1::DATA_TYPE_FLOAT64, 1, 1), HasSubstr("'<f8'"));
}

TEST(NpyTest, ElementsFollowRowByRow) {
  const std::string path = TestPath();
  const Matrix<double> wide = Matrix<double>::Random(4, 5);
  ASSERT_TRUE(WriteNpy(path, wide.middleCols(1, 3)).ok());
  const std::string contents = Contents(path);
  const std::string header = NpyHeader(v1::DATA_TYPE_FLOAT64, 4, 3);
  ASSERT_EQ(contents.size(), header.size() + 12 * sizeof(double));
  EXPECT_THAT(contents, StartsWith(header));
  Matrix<double> read(4, 3);
  std::memcpy(read.data(), contents.data() + header.size(), 12 * sizeof(double));
  EXPECT_EQ(read, wide.middleCols(1, 3));
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
  std::filesystem::remove(path);
}

TEST(NpyTest, AnErrorNamesTheFile) {
  const std::string path = testing::TempDir() + "no such folder/x.npy";
  const Matrix<float> m = Matrix<float>::Ones(1, 1);
  const absl::Status status = WriteNpy(path, m);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

}  // namespace
}  // namespace fisherd::ctl
