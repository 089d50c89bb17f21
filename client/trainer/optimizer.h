// What a trainer does with a gradient.

#ifndef FISHERD_TRAINER_OPTIMIZER_H_
#define FISHERD_TRAINER_OPTIMIZER_H_

#include "client/trainer/network.h"

namespace fisherd::trainer {

// Not thread-safe. The same calls make the same bits.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Moves the parameters once.
  virtual void Step(const Layers& gradients, Layers& parameters) = 0;
};

// velocity ← momentum·velocity + gradient;  parameters ← parameters − learning_rate·velocity
class Sgd final : public Optimizer {
 public:
  Sgd(double learning_rate, double momentum) : learning_rate_(learning_rate), momentum_(momentum) {}
  void Step(const Layers& gradients, Layers& parameters) override;

 private:
  const float learning_rate_;
  const float momentum_;
  Layers velocity_;
};

// Kingma and Ba, 2015, Algorithm 1, with its constants β₁ = 0.9, β₂ = 0.999, ε = 1e−8.
class Adam final : public Optimizer {
 public:
  explicit Adam(double learning_rate) : learning_rate_(learning_rate) {}
  void Step(const Layers& gradients, Layers& parameters) override;

 private:
  const double learning_rate_;
  int step_ = 0;
  Layers mean_;
  Layers square_;
};

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_OPTIMIZER_H_
