#include "client/cpp/crc32c.h"

#include <gtest/gtest.h>

#include <string>

namespace fisherd {
namespace {

// Check values of RFC 3720, appendix B.4, and of the catalogue of CRCs.
TEST(Crc32cTest, HasTheStandardsValues) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

}  // namespace
}  // namespace fisherd
