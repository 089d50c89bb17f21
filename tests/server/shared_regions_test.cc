#include "server/shared_regions.h"

#include <linux/memfd.h>

#include <cstdio>
#include <string>

#include "gmock/gmock.h"
#include "tests/server/memory_file.h"

namespace fisherd::server {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kLimit = 1 << 20;

class SharedRegionsTest : public testing::Test {
 protected:
  void ExpectRefused(int fd, absl::StatusCode code, const std::string& why) {
    const auto token = regions_.Add(fd);
    EXPECT_EQ(token.status().code(), code);
    EXPECT_THAT(std::string(token.status().message()), HasSubstr(why));
    EXPECT_EQ(regions_.bytes(), 0);
  }
  void ExpectBad(int fd, const std::string& why) {
    ExpectRefused(fd, absl::StatusCode::kInvalidArgument, why);
  }

  SharedRegions regions_{kLimit};
};

TEST_F(SharedRegionsTest, ReadsWhatItsOwnerWritesAlsoLater) {
  MemoryFile file(10'000);
  file.Write(9'990, "0123456789");
  const auto token = regions_.Add(file.fd());
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(token->size(), 16);
  EXPECT_EQ(regions_.bytes(), 10'000);
  const auto region = regions_.Find(*token);
  ASSERT_NE(region, nullptr);
  EXPECT_EQ(region->size(), 10'000);
  EXPECT_EQ(region->bytes(9'992, 8), "23456789");
  file.Write(9'999, "!");
  EXPECT_EQ(region->bytes(9'998, 2), "8!");
}

TEST_F(SharedRegionsTest, IsMappedAsLongAsSomebodyReads) {
  std::shared_ptr<const SharedRegion> region;
  std::string token;
  {
    MemoryFile file(4'096);
    file.Write(0, "here");
    token = *regions_.Add(file.fd());
  }
  region = regions_.Find(token);
  regions_.Remove(token);
  EXPECT_EQ(regions_.Find(token), nullptr);
  EXPECT_EQ(region->bytes(0, 4), "here");
  EXPECT_EQ(regions_.bytes(), 4'096);
  region = nullptr;
  EXPECT_EQ(regions_.bytes(), 0);
  regions_.Remove(token);
  regions_.Remove("nothing");
}

TEST_F(SharedRegionsTest, TokensDifferAndTellTheirOwn) {
  MemoryFile one(4'096);
  MemoryFile other(8'192);
  const std::string first = *regions_.Add(one.fd());
  const std::string second = *regions_.Add(other.fd());
  const std::string again = *regions_.Add(one.fd());
  EXPECT_NE(first, second);
  EXPECT_NE(first, again);
  EXPECT_EQ(regions_.Find(second)->size(), 8'192);
  for (const std::string& unknown :
       {std::string(), std::string(16, '\0'), first.substr(1), first + '\0'}) {
    EXPECT_EQ(regions_.Find(unknown), nullptr);
  }
}

TEST_F(SharedRegionsTest, RefusesWhatMayShrinkOrVanish) {
  constexpr char kNoMemfd[] = "is not one of memfd_create with ordinary pages";
  ExpectBad(MemoryFile(4'096, 0).fd(), "not sealed");
  ExpectBad(MemoryFile(4'096, F_SEAL_GROW).fd(), "not sealed");
  ExpectBad(MemoryFile(4'096, F_SEAL_SHRINK).fd(), "not sealed");
  ExpectBad(MemoryFile(0).fd(), "empty");
  ExpectBad(-1, kNoMemfd);
  std::FILE* const file = std::tmpfile();
  ExpectBad(fileno(file), kNoMemfd);
  std::fclose(file);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  ExpectBad(pipe_ends[0], kNoMemfd);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  // Reading a hole of such memory ends the reader when there is no huge page left.
  const int huge = memfd_create("huge", MFD_ALLOW_SEALING | MFD_HUGETLB);
  if (huge >= 0) {
    EXPECT_EQ(ftruncate(huge, 2 << 20), 0);
    EXPECT_EQ(fcntl(huge, F_ADD_SEALS, kRightSeals), 0);
  }
  ExpectBad(huge, kNoMemfd);
  close(huge);
}

TEST_F(SharedRegionsTest, AllTogetherHaveALimit) {
  ExpectRefused(MemoryFile(kLimit + 1).fd(), absl::StatusCode::kResourceExhausted,
                "is 1048577 bytes; the server takes 1048576");
  ExpectRefused(MemoryFile(int64_t{1} << 60).fd(), absl::StatusCode::kResourceExhausted, "bytes");
  MemoryFile half(kLimit / 2);
  const std::string first = *regions_.Add(half.fd());
  EXPECT_TRUE(regions_.Add(half.fd()).ok());
  EXPECT_EQ(regions_.bytes(), kLimit);
  MemoryFile small(1);
  EXPECT_TRUE(absl::IsResourceExhausted(regions_.Add(small.fd()).status()));
  regions_.Remove(first);
  EXPECT_TRUE(regions_.Add(small.fd()).ok());
}

}  // namespace
}  // namespace fisherd::server
