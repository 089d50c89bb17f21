#include "client/trainer/network.h"

#include <cmath>
#include <cstddef>

namespace fisherd::trainer {

Layers InitialParameters(std::span<const int> widths, Random random) {
  Layers parameters;
  for (size_t layer = 0; layer + 1 < widths.size(); ++layer) {
    Matrix& matrix = parameters.emplace_back(Matrix::Zero(widths[layer] + 1, widths[layer + 1]));
    const double deviation = 1 / std::sqrt(widths[layer]);
    for (float& weight : matrix.topRows(widths[layer]).reshaped()) {
      weight = static_cast<float>(deviation * random.Normal());
    }
  }
  return parameters;
}

ForwardPass Forward(const Layers& parameters, const Matrix& inputs) {
  ForwardPass pass;
  pass.inputs.push_back(inputs);
  for (size_t layer = 0; layer < parameters.size(); ++layer) {
    const Matrix& matrix = parameters[layer];
    Matrix outputs = pass.inputs[layer] * matrix.topRows(matrix.rows() - 1);
    outputs.rowwise() += matrix.bottomRows<1>();
    if (layer + 1 == parameters.size()) {
      pass.logits = std::move(outputs);
    } else {
      pass.inputs.push_back(outputs.array().tanh());
    }
  }
  return pass;
}

Matrix Softmax(const Matrix& logits) {
  Matrix result = (logits.colwise() - logits.rowwise().maxCoeff()).array().exp();
  result.array().colwise() /= result.rowwise().sum().array().eval();
  return result;
}

std::vector<int> SampleLabels(const Matrix& probabilities, Random random) {
  std::vector<int> labels;
  for (const auto& row : probabilities.rowwise()) {
    double rest = random.Uniform() * row.sum();
    int label = 0;
    while (label + 1 < row.size() && (rest -= row(label)) >= 0) ++label;
    labels.push_back(label);
  }
  return labels;
}

Layers OutputsGradients(const Layers& parameters, const ForwardPass& pass,
                        const Matrix& probabilities, std::span<const int> labels) {
  Layers gradients(parameters.size());
  Matrix gradient = probabilities;
  for (size_t row = 0; row < labels.size(); ++row) gradient(row, labels[row]) -= 1;
  for (size_t layer = parameters.size() - 1;; --layer) {
    gradients[layer] = gradient;
    if (layer == 0) return gradients;
    const Matrix& matrix = parameters[layer];
    gradient = gradient * matrix.topRows(matrix.rows() - 1).transpose();
    gradient.array() *= 1 - pass.inputs[layer].array().square();
  }
}

Layers ParameterGradients(const Layers& inputs, const Layers& outputs_grads, float divisor) {
  Layers gradients;
  for (size_t layer = 0; layer < inputs.size(); ++layer) {
    const Matrix &a = inputs[layer], &g = outputs_grads[layer];
    Matrix& gradient = gradients.emplace_back(a.cols() + 1, g.cols());
    gradient.topRows(a.cols()).noalias() = a.transpose() * g;
    gradient.bottomRows<1>() = g.colwise().sum();
    gradient /= divisor;
  }
  return gradients;
}

Evaluation Evaluate(const Layers& parameters, const Examples& examples) {
  const Matrix logits = Forward(parameters, examples.inputs).logits;
  Evaluation evaluation;
  for (int row = 0; row < examples.size(); ++row) {
    Eigen::Index likeliest;
    const float largest = logits.row(row).maxCoeff(&likeliest);
    const auto shifted = (logits.row(row).array() - largest).cast<double>();
    evaluation.loss += std::log(shifted.exp().sum()) - shifted(examples.labels[row]);
    evaluation.accuracy += likeliest == examples.labels[row];
  }
  evaluation.loss /= examples.size();
  evaluation.accuracy /= examples.size();
  return evaluation;
}

uint64_t Checksum(const Layers& layers) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const Matrix& matrix : layers) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(matrix.data());
    for (size_t i = 0; i < matrix.size() * sizeof(float); ++i) {
      hash = (hash ^ bytes[i]) * 0x100000001b3;
    }
  }
  return hash;
}

}  // namespace fisherd::trainer
