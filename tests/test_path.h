// Where a test keeps its files.

#ifndef FISHERD_TESTS_TEST_PATH_H_
#define FISHERD_TESTS_TEST_PATH_H_

#include <unistd.h>

#include <algorithm>
#include <string>

#include "gtest/gtest.h"

namespace fisherd {

// A path in the temporary directory that no other test has: ctest runs the cases of one program
// side by side. Not there yet, and short enough for a Unix socket.
inline std::string TestPath() {
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = std::string(test->test_suite_name()) + "." + test->name();
  std::replace(name.begin(), name.end(), '/', '-');
  return testing::TempDir() + "fisherd." + std::to_string(getpid()) + "." + name.substr(0, 60);
}

}  // namespace fisherd

#endif  // FISHERD_TESTS_TEST_PATH_H_
