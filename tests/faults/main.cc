// The tests; or, as `fault_tests --trainer PORT FACTOR TOWER STEPS`, one trainer in a process that
// can be stopped.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "tests/faults/stopped_trainer.h"

int main(int argc, char** argv) {
  if (argc == 6 && std::string_view(argv[1]) == "--trainer") {
    return fisherd::faults::RunTrainer(std::atoi(argv[2]), argv[3], std::atoi(argv[4]),
                                       std::atoll(argv[5]));
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
