// A multilayer perceptron: fully-connected layers with bias, tanh between them, softmax and
// cross-entropy at the end.
//
// The parameters of a layer, and everything that has their shape, are one matrix [inputs + 1,
// outputs] with the bias as its last row: the shape in which fisherd keeps the layer's factor.

#ifndef FISHERD_TRAINER_NETWORK_H_
#define FISHERD_TRAINER_NETWORK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/trainer/data.h"
#include "client/trainer/random.h"

namespace fisherd::trainer {

// One matrix per layer.
using Layers = std::vector<Matrix>;

// Weights of variance 1 / inputs, biases 0. `widths` are the network's inputs, its hidden layers'
// outputs, and its outputs.
Layers InitialParameters(std::span<const int> widths, Random random);

struct ForwardPass {
  Layers inputs;  // of every layer, [N, inputs]
  Matrix logits;  // [N, classes]
};
ForwardPass Forward(const Layers& parameters, const Matrix& inputs);

// Probabilities of the classes, row by row.
Matrix Softmax(const Matrix& logits);

// A label for every row, drawn from its probabilities.
std::vector<int> SampleLabels(const Matrix& probabilities, Random random);

// Gradients of every example's own loss with respect to every layer's outputs (before tanh), [N,
// outputs]: not divided by N, so that their squares make a Fisher.
Layers OutputsGradients(const Layers& parameters, const ForwardPass& pass,
                        const Matrix& probabilities, std::span<const int> labels);

// Σ_n [a_n, 1]ᵀ g_n / divisor, layer by layer.
Layers ParameterGradients(const Layers& inputs, const Layers& outputs_grads, float divisor);

struct Evaluation {
  double loss = 0;      // mean cross-entropy, nats
  double accuracy = 0;  // share of the examples whose likeliest class is the right one
};
Evaluation Evaluate(const Layers& parameters, const Examples& examples);

// FNV-1a of the bits.
uint64_t Checksum(const Layers& layers);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_NETWORK_H_
