// How the tests of the model run it.

#ifndef FISHERD_TESTS_MODEL_RUNS_H_
#define FISHERD_TESTS_MODEL_RUNS_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "tests/long_tests.h"
#include "tests/model/explorer.h"
#include "tests/model/protocol_model.h"

namespace fisherd::model {

inline Exploration Explore(const Config& config) {
  const ProtocolModel model(config);
  Exploration result = Explorer(model).Explore(20'000'000);
  std::cout << ToString(result) << "\n";
  return result;
}

// Every state, and from every state the goal.
inline void ExpectHolds(const Config& config) {
  const Exploration result = Explore(config);
  EXPECT_TRUE(result.ok()) << ToString(result);
}

// Random walks, which end without adversity.
inline void ExpectWalksHold(const Config& config, int usual, int many, int length = 80) {
  const ProtocolModel model(config);
  const Exploration result =
      Explorer(model).Walk(/*seed=*/20261122, Repetitions(usual, many), length,
                           /*patience=*/4000, [](State* state) { state->left = {}; });
  std::cout << ToString(result) << "\n";
  EXPECT_TRUE(result.ok()) << ToString(result);
}

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_RUNS_H_
