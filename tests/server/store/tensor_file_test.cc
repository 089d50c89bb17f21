#include "server/store/tensor_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "tests/test_path.h"

namespace fisherd::server {
namespace {

class TensorFileTest : public testing::Test {
 protected:
  TensorFileTest() {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  ~TensorFileTest() override { std::filesystem::remove_all(directory_); }

  static std::unique_ptr<core::Matrix> Counting(int64_t rows, int64_t cols,
                                                core::DataType dtype = core::DataType::kFloat32) {
    auto matrix = core::Matrix::New({rows, cols, dtype});
    if (dtype == core::DataType::kFloat64) {
      std::iota(matrix->elements<double>().begin(), matrix->elements<double>().end(), 1.0);
    } else {
      std::iota(matrix->elements<float>().begin(), matrix->elements<float>().end(), 1.0f);
    }
    return matrix;
  }
  static bool Same(const core::Matrix& a, const core::Matrix& b) {
    return a.shape() == b.shape() && std::memcmp(a.bytes().data(), b.bytes().data(),
                                                 static_cast<size_t>(a.shape().bytes())) == 0;
  }
  std::string Contents() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }
  void Overwrite(const std::string& contents) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << contents;
  }

  const std::string directory_ = TestPath();
  const std::string path_ = directory_ + "/7.safetensors";
};

TEST_F(TensorFileTest, HasTheLayoutOfSafetensors) {
  const auto matrix = Counting(2, 3);
  const std::vector<NamedMatrix> tensors = {{"covariance/a \"b\" \\c/\xC3\xA9", matrix.get()}};
  const auto places =
      TensorFileWriter(tensors).Write(directory_, "7.safetensors", {{"key", "\"value\""}});
  ASSERT_TRUE(places.ok()) << places.status();
  const std::string file = Contents();
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  EXPECT_EQ((length + 8) % 4096, 0);
  const std::string header = file.substr(8, length);
  EXPECT_EQ(
      header.substr(0, header.find_last_not_of(' ') + 1),
      "{\"__metadata__\":{\"key\":\"\\\"value\\\"\"},\"covariance/a \\\"b\\\" \\\\c/\xC3\xA9\":"
      "{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},\"checksums\":"
      "{\"dtype\":\"U32\",\"shape\":[3],\"data_offsets\":[24,36]}}");
  EXPECT_EQ(file.size(), 8 + length + 36);
  EXPECT_EQ(std::memcmp(file.data() + 8 + length, matrix->bytes().data(), 24), 0);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp"));
}

// Around the blocks of checksums and of writing.
TEST_F(TensorFileTest, WhatIsWrittenIsRead) {
  for (const int64_t cols :
       {1, 1023, 1 << 18, (1 << 18) + 1, (1 << 20) - 1024, 1 << 20, 2'500'000}) {
    const auto first = Counting(1, cols);
    const auto second = Counting(3, 5, core::DataType::kFloat64);
    const std::vector<NamedMatrix> tensors = {{"first", first.get()}, {"second", second.get()}};
    const auto places = TensorFileWriter(tensors).Write(directory_, "7.safetensors", {});
    ASSERT_TRUE(places.ok()) << places.status();
    const auto header = ReadTensorFileHeader(path_);
    ASSERT_TRUE(header.ok()) << header.status();
    for (const auto& [name, matrix] : tensors) {
      const auto& tensor = header->tensors.at(name);
      EXPECT_EQ(tensor.shape, matrix->shape());
      const auto read = core::Matrix::New(tensor.shape);
      EXPECT_TRUE(ReadTensor(path_, tensor.place, *read).ok());
      EXPECT_TRUE(Same(*read, *matrix)) << name << " " << cols;
    }
    EXPECT_EQ(header->tensors.at("first").place.SerializeAsString(),
              (*places)[0].SerializeAsString());
  }
}

// Nothing that was changed is taken for what was written; and a tensor that was not is read.
TEST_F(TensorFileTest, EveryBitCounts) {
  const auto first = Counting(1, 4);
  const auto second = Counting(2, 2);
  const std::vector<NamedMatrix> tensors = {{"first", first.get()}, {"second", second.get()}};
  const auto places = TensorFileWriter(tensors).Write(directory_, "7.safetensors", {{"a", "b"}});
  ASSERT_TRUE(places.ok()) << places.status();
  const std::string file = Contents();
  const auto read = core::Matrix::New(first->shape());
  for (size_t i = 0; i < file.size(); ++i) {
    if (i > 200 && i < 4090) continue;  // spaces
    std::string changed = file;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    Overwrite(changed);
    const bool in_tensor = i >= 4096 && i < 4096 + 32;
    EXPECT_EQ(ReadTensorFileHeader(path_).ok(), in_tensor) << i;
    EXPECT_EQ(ReadTensor(path_, (*places)[0], *read).ok(), i < 4096 || i >= 4096 + 16) << i;
  }
  for (size_t size = 0; size < file.size(); size += 7) {
    Overwrite(file.substr(0, size));
    EXPECT_EQ(ReadTensorFileHeader(path_).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReadTensor(path_, (*places)[0], *read).ok(), size >= 4096 + 16) << size;
  }
}

TEST_F(TensorFileTest, WhatIsNoneOfOursIsRefused) {
  for (const char* header :
       {"", "{", "[]", "{\"a\":1}", "{\"checksums\":{\"dtype\":\"U32\",\"shape\":[0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}",
        "{\"checksums\":{\"dtype\":\"U32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
        "{\"checksums\":{\"dtype\":\"U32\",\"shape\":[1e99],\"data_offsets\":[0,1e99]}}"}) {
    const uint64_t length = std::strlen(header);
    std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
    Overwrite(file + header + std::string(12, '\0'));
    EXPECT_EQ(ReadTensorFileHeader(path_).status().code(), absl::StatusCode::kInvalidArgument)
        << header;
  }
  const uint64_t huge = ~uint64_t{0};
  Overwrite(std::string(reinterpret_cast<const char*>(&huge), sizeof(huge)));
  EXPECT_FALSE(ReadTensorFileHeader(path_).ok());
  EXPECT_FALSE(ReadTensorFileHeader(directory_ + "/nowhere").ok());
}

}  // namespace
}  // namespace fisherd::server
