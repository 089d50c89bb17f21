#include "server/store/direct_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/test_path.h"

namespace fisherd::server {
namespace {

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 4096);
  return bytes;
}

TEST(DirectFileTest, WritesExactlyWhatIsAppended) {
  const std::string path = TestPath();
  constexpr size_t kBuffer = DirectFile::kBufferBytes;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{4097},
                            kBuffer - 1, kBuffer, kBuffer + 1, 5 * kBuffer + 12345}) {
    std::filesystem::remove(path);
    auto file = DirectFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const std::string bytes = Pattern(size);
    // In pieces of every size up to all at once.
    for (size_t from = 0, piece = 1; from < size; from += piece, piece = piece * 3 + 1) {
      ASSERT_TRUE(
          (*file)
              ->Append(std::as_bytes(std::span(bytes).subspan(from, std::min(piece, size - from))))
              .ok());
    }
    ASSERT_TRUE((*file)->Finish().ok());
    ASSERT_TRUE((*file)->Sync().ok());
    std::stringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    EXPECT_TRUE(text.str() == bytes) << size;
  }
  EXPECT_FALSE(DirectFile::Create(path).ok());  // it is there
  std::filesystem::remove(path);
  EXPECT_FALSE(DirectFile::Create(testing::TempDir() + "no such folder/x").ok());
}

// Behind whole blocks and behind others, from memory at any place.
TEST(DirectFileTest, WhatIsKeptIsWrittenInItsPlace) {
  const std::string path = TestPath();
  const std::string pattern = Pattern(3 * DirectFile::kBufferBytes + 5000);
  const auto memory = core::MakeAlignedArray<char>(pattern.size() + 64);
  for (const size_t before : {size_t{0}, size_t{4096}, size_t{100}}) {
    for (const size_t shift : {0, 64}) {
      std::memcpy(memory.get() + shift, pattern.data(), pattern.size());
      std::filesystem::remove(path);
      auto file = DirectFile::Create(path);
      ASSERT_TRUE(file.ok()) << file.status();
      const std::string head = Pattern(before);
      ASSERT_TRUE((*file)->Append(std::as_bytes(std::span(head))).ok());
      const std::span kept(memory.get() + shift, pattern.size());
      ASSERT_TRUE((*file)->AppendKept(std::as_bytes(kept)).ok());
      ASSERT_TRUE((*file)->AppendKept(std::as_bytes(kept)).ok());
      ASSERT_TRUE((*file)->Append(std::as_bytes(std::span(head))).ok());
      ASSERT_TRUE((*file)->Finish().ok());
      std::stringstream text;
      text << std::ifstream(path, std::ios::binary).rdbuf();
      EXPECT_TRUE(text.str() == head + pattern + pattern + head) << before << " " << shift;
    }
  }
  std::filesystem::remove(path);
}

TEST(DirectFileTest, ADirectoryIsSynced) {
  EXPECT_TRUE(SyncDirectory(testing::TempDir()).ok());
  EXPECT_FALSE(SyncDirectory(testing::TempDir() + "nowhere").ok());
}

}  // namespace
}  // namespace fisherd::server
