#include "core/kinds/fully_connected_diagonal/fully_connected_diagonal.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "core/kernels/advance.h"
#include "core/kinds/fully_connected_diagonal/batch.h"
#include "core/kinds/fully_connected_diagonal/contribution.h"
#include "core/kinds/fully_connected_diagonal/saved_batch.h"

namespace fisherd::core {
namespace {

// Bytes of a state, and of a batch as sent or held: more than any machine has, and few enough that
// sums over 4096 towers stay far from the end of 64 bits.
constexpr double kMaxBytes = 0x1p48;

const FullyConnectedDiagonalBatch& Typed(const Batch* batch) {
  return *static_cast<const FullyConnectedDiagonalBatch*>(batch);
}

class FullyConnectedDiagonal final : public Kind {
 public:
  FullyConnectedDiagonal(const FactorSpec& spec, const FullyConnectedDiagonalSpec& layer)
      : spec_(spec), layer_(layer) {}

  std::string_view name() const override { return "FullyConnectedDiagonal"; }
  MatrixShape state_shape() const override {
    return {.rows = layer_.input_size + layer_.has_bias,
            .cols = layer_.output_size,
            .dtype = spec_.dtype};
  }
  absl::Status CheckBatch(const BatchHeader& header) const override;
  int64_t HeldBytes(const BatchHeader& header) const override {
    return header.form == BatchForm::kContribution
               ? ContributionBytes(header, spec_.dtype)
               : FullyConnectedDiagonalBatchBytes(header, spec_.dtype);
  }
  std::unique_ptr<Batch> NewBatch(const BatchHeader& header, HostMemory* memory) const override {
    if (header.form == BatchForm::kContribution)
      return NewContribution(header, spec_.dtype, memory);
    return NewFullyConnectedDiagonalBatch(header, spec_.dtype, memory);
  }
  int64_t SavedBytes(const Batch& batch) const override {
    return SavedBatchBytes(Typed(&batch), layer_.input_size, state_shape());
  }
  std::string SaveBatch(const Batch& batch) const override {
    return core::SaveBatch(Typed(&batch), layer_.input_size, state_shape());
  }
  std::unique_ptr<Batch> LoadBatch(std::string_view bytes) const override {
    return core::LoadBatch(bytes, layer_.input_size, state_shape());
  }
  double Advance(const StepParameters& step, std::span<const Batch* const> batches,
                 bool find_largest, const Matrix& from, Matrix& to,
                 Backend& backend) const override;
  double BoundOf(std::span<const Batch* const> batches) const override;
  std::shared_ptr<const LinearOperator> Read(
      CovarianceView covariance, std::optional<LinearOperatorDiag::Power> power) const override {
    return std::make_shared<LinearOperatorDiag>(std::move(covariance), layer_.has_bias, power);
  }

 private:
  absl::Status CheckTensors(const BatchHeader& header) const;
  absl::Status CheckContribution(const BatchHeader& header) const;
  // What every batch is multiplied by.
  std::vector<double> ScalesOf(std::span<const Batch* const> batches) const;

  const FactorSpec spec_;
  const FullyConnectedDiagonalSpec layer_;
};

absl::Status FullyConnectedDiagonal::CheckBatch(const BatchHeader& header) const {
  if (header.rows < 1) {
    return BadArgument("rows", absl::StrCat("rows is ", header.rows, "; expected at least 1"));
  }
  const double row_elements = static_cast<double>(layer_.input_size) +
                              static_cast<double>(spec_.sources) * layer_.output_size + 1;
  if (header.rows * row_elements * 8 > kMaxBytes) {
    return BadArgument("rows", absl::StrCat("rows is ", header.rows, "; expected at most ",
                                            static_cast<int64_t>(kMaxBytes / 8 / row_elements)));
  }
  if (!std::isfinite(header.gradient_scale) || header.gradient_scale <= 0) {
    return BadArgument("gradient_scale", absl::StrCat("gradient_scale is ", header.gradient_scale,
                                                      "; expected a finite number above 0"));
  }
  return header.form == BatchForm::kContribution ? CheckContribution(header) : CheckTensors(header);
}

absl::Status FullyConnectedDiagonal::CheckContribution(const BatchHeader& header) const {
  const MatrixShape state = state_shape();
  TensorSpec want{.role = TensorRole::kContribution, .shape = {state.rows, state.cols}};
  if (header.tensors.size() == 1) want.dtype = header.tensors[0].dtype;
  if (header.tensors.size() != 1 || SizeOf(want.dtype) == 0 || header.tensors[0] != want) {
    return BadArgument("tensors",
                       absl::StrCat(header.tensors.size(), " tensors",
                                    header.tensors.empty() ? "" : ", the first of them ",
                                    header.tensors.empty() ? "" : Describe(header.tensors[0]),
                                    "; expected one, ", Describe(want)));
  }
  const double examples = header.examples.value_or(1);
  if (examples >= kMinWeightSum && examples <= kMaxWeightSum) return absl::OkStatus();
  return BadArgument("examples", absl::StrCat("examples is ", examples, "; expected a number from ",
                                              kMinWeightSum, " to ", kMaxWeightSum));
}

absl::Status FullyConnectedDiagonal::CheckTensors(const BatchHeader& header) const {
  for (const TensorSpec& tensor : header.tensors) {
    if (tensor.role == TensorRole::kOutputsGrads &&
        (tensor.source < 0 || tensor.source >= spec_.sources)) {
      return MakeError(absl::StatusCode::kOutOfRange, reason::kOutOfRange,
                       absl::StrCat(Describe(tensor), ": source is ", tensor.source,
                                    "; expected 0 to ", spec_.sources - 1),
                       {{"field", "source"}});
    }
  }
  std::vector<TensorSpec> expected = {
      {.role = TensorRole::kInputs, .shape = {header.rows, layer_.input_size}}};
  for (int source = 0; source < spec_.sources; ++source) {
    expected.push_back({.role = TensorRole::kOutputsGrads,
                        .source = source,
                        .shape = {header.rows, layer_.output_size}});
  }
  if (header.tensors.size() == expected.size() + 1) {
    expected.push_back({.role = TensorRole::kRowWeights, .shape = {header.rows}});
  }
  if (header.tensors.size() != expected.size()) {
    return BadArgument(
        "tensors", absl::StrCat(header.tensors.size(), " tensors; expected inputs, ", spec_.sources,
                                " outputs_grads, and row_weights or not"));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const TensorSpec& tensor = header.tensors[i];
    TensorSpec& want = expected[i];
    if (SizeOf(tensor.dtype) == 0) {
      return BadArgument("tensors",
                         absl::StrCat("tensor ", i, " is ", Describe(tensor),
                                      "; expected a dtype of FLOAT32, FLOAT64, BFLOAT16 or "
                                      "FLOAT16"));
    }
    want.dtype = tensor.dtype;
    if (tensor != want) {
      return BadArgument("tensors", absl::StrCat("tensor ", i, " is ", Describe(tensor),
                                                 "; expected ", Describe(want)));
    }
  }
  return absl::OkStatus();
}

std::vector<double> FullyConnectedDiagonal::ScalesOf(std::span<const Batch* const> batches) const {
  double examples = 0;
  for (const Batch* batch : batches) examples += Typed(batch).examples();
  std::vector<double> scales;
  for (const Batch* batch : batches) {
    const bool weighted = spec_.tower_weighting == TowerWeighting::kExampleWeighted;
    const double own = Typed(batch).examples();
    if (Typed(batch).is_contribution()) {
      scales.push_back(weighted ? own / examples : 1.0 / batches.size());
    } else {
      scales.push_back(1 / (weighted ? examples : batches.size() * own));
    }
  }
  return scales;
}

double FullyConnectedDiagonal::Advance(const StepParameters& step,
                                       std::span<const Batch* const> batches, bool find_largest,
                                       const Matrix& from, Matrix& to, Backend& backend) const {
  const std::vector<double> scales = ScalesOf(batches);
  std::vector<SquaredRows> towers;
  std::vector<ReducedTower> reduced;
  for (size_t t = 0; t < batches.size(); ++t) {
    const FullyConnectedDiagonalBatch& batch = Typed(batches[t]);
    if (batch.is_contribution()) {
      reduced.push_back({.elements = batch.contribution().elements, .scale = scales[t]});
    } else {
      const auto& squares = batch.squares();
      towers.push_back({.left = squares.left,
                        .right = squares.right,
                        .rows = squares.rows,
                        .scale = scales[t],
                        .largest = std::max(squares.left_max, squares.right_max)});
    }
  }
  return backend.Advance({.decay = step.decay,
                          .weight = step.weight,
                          .ones_column = layer_.has_bias,
                          .towers = towers,
                          .reduced = reduced,
                          .find_largest = find_largest},
                         from, to);
}

double FullyConnectedDiagonal::BoundOf(std::span<const Batch* const> batches) const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // Every product and sum may round up by half a unit in the last place: 512 times in a chain, and
  // by the smallest number where the result is subnormal.
  constexpr double kSlack = 1.001;
  const double tiny = spec_.dtype == DataType::kFloat64 ? std::numeric_limits<double>::denorm_min()
                                                        : std::numeric_limits<float>::denorm_min();
  const std::vector<double> scales = ScalesOf(batches);
  double bound = 0;
  double largest = 0;  // product of a row
  int64_t rows = 0;
  for (size_t t = 0; t < batches.size(); ++t) {
    const FullyConnectedDiagonalBatch& batch = Typed(batches[t]);
    if (batch.is_contribution()) {
      bound += (batch.contribution().max + tiny) * scales[t];
      continue;
    }
    const auto& squares = batch.squares();
    const double left_max = std::max(squares.left_max, layer_.has_bias ? 1.0 : 0.0);
    const double product = kSlack * (left_max * squares.right_max + tiny);
    bound += squares.rows * product * scales[t];
    largest = std::max(largest, product);
    rows += squares.rows;
  }
  // A run of chains may go on over several towers.
  if (std::min(rows, kernels::kPassChains * kernels::kChainRows) * largest > MaxOf(spec_.dtype))
    return kInfinity;
  bound *= kSlack;
  return bound <= MaxOf(spec_.dtype) ? bound : kInfinity;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Kind>> MakeFullyConnectedDiagonal(
    const FactorSpec& spec, const FullyConnectedDiagonalSpec& layer) {
  if (layer.input_size < 1) {
    return BadArgument("input_size",
                       absl::StrCat("input_size is ", layer.input_size, "; expected at least 1"));
  }
  if (layer.output_size < 1) {
    return BadArgument("output_size",
                       absl::StrCat("output_size is ", layer.output_size, "; expected at least 1"));
  }
  const double bytes = (static_cast<double>(layer.input_size) + layer.has_bias) *
                       layer.output_size * SizeOf(spec.dtype);
  if (bytes > kMaxBytes) {
    return BadArgument("input_size", absl::StrCat("a state of input_size ", layer.input_size,
                                                  " and output_size ", layer.output_size, " has ",
                                                  bytes, " bytes; expected at most ", kMaxBytes));
  }
  return std::make_unique<FullyConnectedDiagonal>(spec, layer);
}

}  // namespace fisherd::core
