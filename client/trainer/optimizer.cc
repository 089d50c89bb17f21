#include "client/trainer/optimizer.h"

#include <cmath>
#include <cstddef>

namespace fisherd::trainer {
namespace {

Layers ZerosLike(const Layers& layers) {
  Layers zeros;
  for (const Matrix& matrix : layers) zeros.push_back(Matrix::Zero(matrix.rows(), matrix.cols()));
  return zeros;
}

}  // namespace

void Sgd::Step(const Layers& gradients, Layers& parameters) {
  if (velocity_.empty()) velocity_ = ZerosLike(gradients);
  for (size_t layer = 0; layer < parameters.size(); ++layer) {
    velocity_[layer] = momentum_ * velocity_[layer] + gradients[layer];
    parameters[layer] -= learning_rate_ * velocity_[layer];
  }
}

void Adam::Step(const Layers& gradients, Layers& parameters) {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
  if (step_ == 0) mean_ = square_ = ZerosLike(gradients);
  ++step_;
  const float rate = static_cast<float>(learning_rate_ / (1 - std::pow(kBeta1, step_)));
  const float debias = static_cast<float>(1 / (1 - std::pow(kBeta2, step_)));
  for (size_t layer = 0; layer < parameters.size(); ++layer) {
    const auto gradient = gradients[layer].array();
    auto mean = mean_[layer].array();
    auto square = square_[layer].array();
    mean = float{kBeta1} * mean + float{1 - kBeta1} * gradient;
    square = float{kBeta2} * square + float{1 - kBeta2} * gradient.square();
    parameters[layer].array() -= rate * mean / ((debias * square).sqrt() + float{kEpsilon});
  }
}

}  // namespace fisherd::trainer
