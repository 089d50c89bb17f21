// The contenders, with the settings that `fisherd-trainer tune` chose for them.

#ifndef FISHERD_TRAINER_METHOD_H_
#define FISHERD_TRAINER_METHOD_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/trainer/optimizer.h"

namespace fisherd::trainer {

// gradient ← gradient ∘ (fisher + damping)^exponent, served by fisherd.
struct Curvature {
  double exponent = -1;
  double damping = 0;
};

struct Method {
  std::string name;
  bool adam = false;  // else SGD
  double learning_rate = 0;
  double momentum = 0;
  std::optional<Curvature> curvature = {};
};

// "rate 0.3, momentum 0.9, damping 0.01"
std::string Settings(const Method& method);

std::unique_ptr<Optimizer> MakeOptimizer(const Method& method);

// SGD, SGD with momentum, Adam, and SGD with momentum on fisherd's gradient with the exponents −1
// and −½, each with the best settings of its grid.
std::vector<Method> TunedMethods();

// The grids, in the same order: twelve trials for each method, placed by two coarser rounds so that
// the best lies inside. The best trial has the least training loss after the last epoch, of its
// worst seed; the test set has no say.
std::vector<std::vector<Method>> Grids();

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_METHOD_H_
