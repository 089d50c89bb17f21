// A diagonal natural gradient by fisherd. This file and its .cc are all that a trainer has to do
// with the server: begin here to use it in your own.

#ifndef FISHERD_TRAINER_NATURAL_GRADIENT_H_
#define FISHERD_TRAINER_NATURAL_GRADIENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/trainer/method.h"
#include "client/trainer/network.h"
#include "fisherd/client.h"

namespace fisherd::trainer {

inline constexpr double kFisherDecay = 0.95;  // of the moving average
inline constexpr int kTowers = 2;

// The name of a layer's factor: "demo/matpower-0.5/layer1".
std::string FactorName(const Curvature& curvature, int layer);

// Makes the factors of a network anew, their damping function, and the registered results that are
// read at every step. Called by one tower, before any opens them.
absl::Status CreateFactors(Client& client, std::span<const int> widths, const Curvature& curvature);
absl::Status DeleteFactors(Client& client, std::span<const int> widths, const Curvature& curvature);

// One tower's use of those factors. Not thread-safe; does not outlive the client.
class NaturalGradient {
 public:
  static absl::StatusOr<NaturalGradient> Open(Client& client, int layers,
                                              const Curvature& curvature, int tower);

  // Streams what this tower saw in one step: every layer's inputs [N, I] and its gradients [N, O]
  // of the examples' own losses, with labels drawn from the model's own predictions. Then
  // multiplies `gradients`, [I + 1, O] each, by (fisher + damping)^exponent, with the Fisher that
  // has just taken in this step of all towers.
  absl::Status Precondition(const Layers& inputs, const Layers& outputs_grads, Layers& gradients);

  // The factor of a layer as it is after the last step, [I + 1, O].
  absl::StatusOr<MatrixXd> Covariance(int layer);

 private:
  NaturalGradient(Client& client, v1::Operator op, UpdateStream stream)
      : client_(&client), operator_(std::move(op)), stream_(std::move(stream)) {}

  Client* client_;
  v1::Operator operator_;
  UpdateStream stream_;
  std::vector<UpdateWriter> writers_;  // one per layer
  std::vector<MinVersion> written_;    // the last step of each
};

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_NATURAL_GRADIENT_H_
