#include "client/trainer/natural_gradient.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace fisherd::trainer {
namespace {

// The damping function's name, which is also the folder of the factors.
std::string Folder(const Curvature& curvature) {
  return absl::StrFormat("demo/matpower%g", curvature.exponent);
}

// A server that has died and comes back gets what was written again by itself; a call has to be
// made again, and is answered once the server has caught up.
template <typename Call>
auto Persist(Call call) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  auto result = call();
  while (absl::IsUnavailable(result.status()) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    result = call();
  }
  return result;
}

}  // namespace

std::string FactorName(const Curvature& curvature, int layer) {
  return absl::StrFormat("%s/layer%d", Folder(curvature), layer);
}

absl::Status CreateFactors(Client& client, std::span<const int> widths,
                           const Curvature& curvature) {
  absl::Status status = client.SetDamping(Folder(curvature), curvature.damping);
  for (int layer = 0; status.ok() && layer + 1 < std::ssize(widths); ++layer) {
    const std::string name = FactorName(curvature, layer);
    const FullyConnectedDiagonal kind = {
        .input_size = widths[layer], .output_size = widths[layer + 1], .has_bias = true};
    status = client.CreateFactor(name, kind, {.towers = kTowers}).status();
    // It may be there from an earlier run.
    if (status.ok()) status = client.Reset(name).status();
    if (status.ok()) {
      status = client.Register(name, Matpower(curvature.exponent, Folder(curvature))).status();
    }
  }
  return status;
}

absl::Status DeleteFactors(Client& client, std::span<const int> widths,
                           const Curvature& curvature) {
  for (int layer = 0; layer + 1 < std::ssize(widths); ++layer) {
    absl::Status status = client.Delete(FactorName(curvature, layer));
    if (!status.ok()) return status;
  }
  return client.DeleteDamping(Folder(curvature));
}

absl::StatusOr<NaturalGradient> NaturalGradient::Open(Client& client, int layers,
                                                      const Curvature& curvature, int tower) {
  NaturalGradient natural(client, Matpower(curvature.exponent, Folder(curvature)),
                          client.OpenUpdates());
  for (int layer = 0; layer < layers; ++layer) {
    absl::StatusOr<UpdateWriter> writer = natural.stream_.Open(FactorName(curvature, layer), tower);
    if (!writer.ok()) return writer.status();
    natural.writers_.push_back(*std::move(writer));
  }
  natural.written_.resize(layers);
  return natural;
}

absl::Status NaturalGradient::Precondition(const Layers& inputs, const Layers& outputs_grads,
                                           Layers& gradients) {
  // What the tower saw: three layers, one stream.
  for (size_t layer = 0; layer < writers_.size(); ++layer) {
    absl::StatusOr<int64_t> step =
        writers_[layer].Write({.inputs = inputs[layer], .outputs_grads = {outputs_grads[layer]}},
                              {.decay = kFisherDecay});
    if (!step.ok()) return step.status();
    written_[layer] = {writers_[layer].progress().incarnation(), *step};
  }
  // What the towers saw together, in one call: the same bits for both.
  std::vector<MultiplyItem> items;
  for (size_t layer = 0; layer < writers_.size(); ++layer) {
    const Matrix& gradient = gradients[layer];
    items.push_back({.factor = writers_[layer].factor(),
                     .op = operator_,
                     .weight = gradient.topRows(gradient.rows() - 1),
                     .bias = gradient.bottomRows<1>(),
                     .min_version = written_[layer]});
  }
  absl::StatusOr<std::vector<Product<float>>> naturals =
      Persist([&] { return client_->MultiplyAll(items); });
  if (!naturals.ok()) return naturals.status();
  for (size_t layer = 0; layer < writers_.size(); ++layer) {
    gradients[layer] << (*naturals)[layer].weight, (*naturals)[layer].bias.transpose();
  }
  return absl::OkStatus();
}

absl::StatusOr<MatrixXd> NaturalGradient::Covariance(int layer) {
  absl::StatusOr<Reading<double>> reading = Persist([&] {
    return client_->Read<double>(writers_[layer].factor(), fisherd::Covariance(),
                                 {.min_version = written_[layer]});
  });
  if (!reading.ok()) return reading.status();
  const auto weight = reading->value.weight();
  MatrixXd covariance(weight.rows() + 1, weight.cols());
  covariance << weight, reading->value.bias().transpose();
  return covariance;
}

}  // namespace fisherd::trainer
