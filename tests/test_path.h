// Where a test keeps its files.

#ifndef FISHERD_TESTS_TEST_PATH_H_
#define FISHERD_TESTS_TEST_PATH_H_

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>

#include "gtest/gtest.h"

namespace fisherd {

// Removes what this process has at its TestPaths, when it ends.
struct TestPathCleaner {
  ~TestPathCleaner() {
    if (getpid() != pid) return;  // a child's
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(testing::TempDir(), error)) {
      if (!entry.path().filename().string().starts_with(prefix)) continue;
      std::filesystem::remove_all(entry.path(), error);
    }
  }
  const pid_t pid = getpid();
  const std::string prefix = "fisherd." + std::to_string(pid) + ".";
};

// A path in the temporary directory that no other test has: ctest runs the cases of one program
// side by side. Not there yet, and short enough for a Unix socket. What is made there, or under a
// name that begins so, goes with the process.
inline std::string TestPath() {
  static const TestPathCleaner cleaner;
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = std::string(test->test_suite_name()) + "." + test->name();
  std::replace(name.begin(), name.end(), '/', '-');
  return testing::TempDir() + cleaner.prefix + name.substr(0, 60);
}

}  // namespace fisherd

#endif  // FISHERD_TESTS_TEST_PATH_H_
