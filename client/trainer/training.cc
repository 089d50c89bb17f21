#include "client/trainer/training.h"

#include <chrono>
#include <optional>
#include <utility>

#include "client/trainer/natural_gradient.h"
#include "client/trainer/random.h"

namespace fisherd::trainer {
namespace {

// What random numbers are for; with the seed, the beginning of every sequence.
enum Purpose : uint32_t { kParameters = 1, kBatchOrder, kSampledLabels };

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// One run in the making.
class Tower {
 public:
  Tower(const Method& method, const Workplace& workplace)
      : workplace_(workplace),
        link_(workplace.link),
        optimizer_(MakeOptimizer(method)),
        parameters_(InitialParameters(kWidths, Random({workplace.seed, kParameters}))) {
    run_.method = method;
  }

  absl::StatusOr<RunResult> Train() {
    absl::Status status = Begin();
    for (int epoch = 0; status.ok() && epoch <= workplace_.epochs && !run_.diverged; ++epoch) {
      if (epoch > 0) status = TrainEpoch(epoch);
      if (status.ok()) status = link_.Agree(Checksum(parameters_));
      if (status.ok()) Record(epoch);
    }
    if (status.ok() && !exact_.empty()) status = Prove();
    // Nobody leaves while the other still reads.
    if (status.ok()) status = link_.Agree(run_.steps);
    if (!status.ok()) return status;
    if (run_.steps > 0) {
      run_.seconds_per_step /= run_.steps;
      run_.seconds_in_rpc /= run_.steps;
    }
    return std::move(run_);
  }

 private:
  absl::Status Begin() {
    if (!run_.method.curvature) return absl::OkStatus();
    const Curvature& curvature = *run_.method.curvature;
    if (link_.tower() == 0) {
      absl::Status status = CreateFactors(workplace_.client, kWidths, curvature);
      if (!status.ok()) return status;
    }
    if (absl::Status status = link_.Agree(0); !status.ok()) return status;
    const int layers = static_cast<int>(parameters_.size());
    absl::StatusOr<NaturalGradient> natural =
        NaturalGradient::Open(workplace_.client, layers, curvature, link_.tower());
    if (!natural.ok()) return natural.status();
    natural_ = *std::move(natural);
    for (int layer = 0; workplace_.prove && layer < layers; ++layer) {
      exact_.emplace_back(kWidths[layer], kWidths[layer + 1], kFisherDecay);
    }
    return absl::OkStatus();
  }

  absl::Status TrainEpoch(int epoch) {
    const uint32_t number = static_cast<uint32_t>(epoch);
    const std::vector<int> order =
        Random({workplace_.seed, kBatchOrder, number}).Permutation(kTrainSize);
    constexpr int kShare = kBatch / kTowers;
    for (int first = 0; first < kTrainSize && !run_.diverged; first += kBatch) {
      const std::span<const int> mine(order.data() + first + link_.tower() * kShare, kShare);
      if (absl::Status status = Step(Rows(workplace_.split.train, mine)); !status.ok()) {
        return status;
      }
      // Both towers have the same parameters, so both stop here.
      for (const Matrix& matrix : parameters_) run_.diverged |= !matrix.allFinite();
    }
    return absl::OkStatus();
  }

  absl::Status Step(const Examples& batch) {
    const Stopwatch step_time;
    ++run_.steps;
    const ForwardPass pass = Forward(parameters_, batch.inputs);
    const Matrix probabilities = Softmax(pass.logits);
    Layers gradients = ParameterGradients(
        pass.inputs, OutputsGradients(parameters_, pass, probabilities, batch.labels), kBatch);
    if (absl::Status status = link_.Sum(gradients); !status.ok()) return status;
    Layers sampled;
    if (natural_) {
      // The Fisher is an expectation over the model's own predictions, not over the data's labels.
      Random random({workplace_.seed, kSampledLabels, static_cast<uint32_t>(link_.tower()),
                     static_cast<uint32_t>(run_.steps)});
      sampled = OutputsGradients(parameters_, pass, probabilities,
                                 SampleLabels(probabilities, std::move(random)));
      const Stopwatch rpc_time;
      absl::Status status = natural_->Precondition(pass.inputs, sampled, gradients);
      if (!status.ok()) return status;
      run_.seconds_in_rpc += rpc_time.Seconds();
    }
    optimizer_->Step(gradients, parameters_);
    run_.seconds_per_step += step_time.Seconds();
    return exact_.empty() ? absl::OkStatus() : Recompute(pass.inputs, sampled);
  }

  // Adds both towers' batches to the exact Fisher, in tower 0.
  absl::Status Recompute(const Layers& inputs, const Layers& outputs_grads) {
    absl::StatusOr<Layers> other_inputs = link_.Exchange(inputs);
    if (!other_inputs.ok()) return other_inputs.status();
    absl::StatusOr<Layers> other_grads = link_.Exchange(outputs_grads);
    if (!other_grads.ok()) return other_grads.status();
    for (size_t layer = 0; link_.tower() == 0 && layer < exact_.size(); ++layer) {
      exact_[layer].Add({{{inputs[layer], outputs_grads[layer]},
                          {(*other_inputs)[layer], (*other_grads)[layer]}}});
    }
    return absl::OkStatus();
  }

  void Record(int epoch) {
    if (link_.tower() != 0) return;
    run_.epochs.push_back({Evaluate(parameters_, workplace_.split.train),
                           Evaluate(parameters_, workplace_.split.test)});
    if (workplace_.on_epoch) workplace_.on_epoch(run_.method, epoch, run_.epochs.back().train);
  }

  absl::Status Prove() {
    if (link_.tower() != 0 || run_.steps == 0) return absl::OkStatus();
    const std::vector<int> dark = DarkColumns(workplace_.split.train.inputs);
    for (int layer = 0; layer < std::ssize(exact_); ++layer) {
      absl::StatusOr<MatrixXd> served = natural_->Covariance(layer);
      if (!served.ok()) return served.status();
      const std::span<const int> dark_rows = layer == 0 ? dark : std::span<const int>();
      run_.proof.push_back({FactorName(*run_.method.curvature, layer),
                            Compare(*served, exact_[layer].Value(), dark_rows),
                            exact_[layer].BatchMeanShare()});
    }
    return absl::OkStatus();
  }

  const Workplace& workplace_;
  TowerLink& link_;
  const std::unique_ptr<Optimizer> optimizer_;
  Layers parameters_;
  std::optional<NaturalGradient> natural_;  // of a method with curvature
  std::vector<ExactFisher> exact_;          // one per layer, to prove it
  RunResult run_;
};

}  // namespace

absl::StatusOr<RunResult> Train(const Method& method, const Workplace& workplace) {
  return Tower(method, workplace).Train();
}

}  // namespace fisherd::trainer
