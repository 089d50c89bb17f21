#include "client/trainer/method.h"

#include <initializer_list>

#include "absl/strings/str_format.h"

namespace fisherd::trainer {
namespace {

constexpr double kMomentum = 0.9;

Method PlainSgd(double rate) { return {.name = "SGD", .learning_rate = rate}; }

Method MomentumSgd(double rate, double momentum) {
  return {.name = "momentum", .learning_rate = rate, .momentum = momentum};
}

Method AdamMethod(double rate) { return {.name = "Adam", .adam = true, .learning_rate = rate}; }

Method Natural(double exponent, double rate, double damping) {
  return {.name = exponent == -1 ? "fisherd^-1" : "fisherd^-1/2",
          .learning_rate = rate,
          .momentum = kMomentum,
          .curvature = Curvature{exponent, damping}};
}

}  // namespace

std::string Settings(const Method& method) {
  std::string text = absl::StrFormat("rate %g", method.learning_rate);
  if (method.momentum != 0) absl::StrAppendFormat(&text, ", momentum %g", method.momentum);
  if (method.curvature) absl::StrAppendFormat(&text, ", damping %g", method.curvature->damping);
  return text;
}

std::unique_ptr<Optimizer> MakeOptimizer(const Method& method) {
  if (method.adam) return std::make_unique<Adam>(method.learning_rate);
  return std::make_unique<Sgd>(method.learning_rate, method.momentum);
}

std::vector<Method> TunedMethods() {
  return {PlainSgd(0.9), MomentumSgd(0.5, 0.9), AdamMethod(0.03), Natural(-1, 0.0006, 0.0003),
          Natural(-0.5, 0.03, 0.001)};
}

std::vector<std::vector<Method>> Grids() {
  std::vector<std::vector<Method>> grids(5);
  for (double rate : {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4}) {
    grids[0].push_back(PlainSgd(rate));
  }
  for (double rate : {0.1, 0.2, 0.3, 0.4, 0.5, 0.7}) {
    for (double momentum : {0.9, 0.95}) grids[1].push_back(MomentumSgd(rate, momentum));
  }
  for (double rate :
       {0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05}) {
    grids[2].push_back(AdamMethod(rate));
  }
  for (double damping : {0.0001, 0.0003, 0.001}) {
    for (double rate : {0.0002, 0.0004, 0.0006, 0.001}) {
      grids[3].push_back(Natural(-1, rate, damping));
    }
  }
  for (double damping : {0.0003, 0.001, 0.003}) {
    for (double rate : {0.01, 0.02, 0.03, 0.05}) {
      grids[4].push_back(Natural(-0.5, rate, damping));
    }
  }
  return grids;
}

}  // namespace fisherd::trainer
