#include "client/cpp/contribution.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/kernels/advance.h"
#include "core/kernels/ingest.h"
#include "core/kernels/packed.h"

namespace fisherd {
namespace {

// As the server's.
constexpr double kMinWeightSum = 1e-300;
constexpr double kMaxWeightSum = 1e300;

// Of the tiles that the product is cut into: what the state's rows and the gradients' columns of
// one take of a cache.
constexpr int64_t kPanelsPerTile = 4;

struct FreeAligned {
  void operator()(void* memory) const { ::operator delete (memory, std::align_val_t{64}); }
};

// Squares of one role's tensors in packed rows.
template <typename T>
struct Squares {
  Squares(int64_t rows, int64_t cols, int panel_lines)
      : shape{.rows = rows, .cols = cols, .panel_lines = panel_lines} {
    const int64_t size = kernels::PackedSize<T>(shape);
    elements.reset(static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{64})));
    std::fill_n(elements.get(), size, T{0});
  }
  T& at(int64_t row, int64_t col) const {
    return elements.get()[kernels::PackedIndex<T>(shape, row, col)];
  }

  kernels::PackedShape shape;
  std::unique_ptr<T, FreeAligned> elements;
};

absl::Status NonFinite(const BatchIdentity& identity, const std::string& field,
                       const std::string& message) {
  return BatchError(absl::StatusCode::kInvalidArgument, "NON_FINITE_INPUT", identity, message,
                    {{"field", field}});
}

template <typename Scalar>
double Element(const MatrixView& matrix, int64_t row, int64_t col) {
  Scalar value;
  std::memcpy(&value, matrix.row(row).data() + col * sizeof(Scalar), sizeof(Scalar));
  return value;
}

double Element(const MatrixView& matrix, int64_t row, int64_t col) {
  return matrix.dtype() == v1::DATA_TYPE_FLOAT64 ? Element<double>(matrix, row, col)
                                                 : Element<float>(matrix, row, col);
}

// Squares rows [first, first + count), which lie one after the other; false if one is not finite.
template <typename T>
bool SquareRows(const MatrixView& from, int64_t first, int64_t count, double scale, bool accumulate,
                Squares<T>& to) {
  const kernels::IngestRun run = {.from = from.row(first).data(),
                                  .first = first * from.cols(),
                                  .count = count * from.cols(),
                                  .scale = scale,
                                  .accumulate = accumulate};
  T* packed = to.elements.get();
  return std::isfinite(from.dtype() == v1::DATA_TYPE_FLOAT64
                           ? kernels::Ingest<double, T>(run, to.shape, packed)
                           : kernels::Ingest<float, T>(run, to.shape, packed));
}

template <typename T>
absl::Status Square(const BatchIdentity& identity, const std::string& field, const MatrixView& from,
                    double scale, bool accumulate, Squares<T>& to) {
  const int64_t rows_per_run = from.contiguous() ? from.rows() : 1;
  for (int64_t row = 0; row < from.rows(); row += rows_per_run) {
    if (SquareRows(from, row, rows_per_run, scale, accumulate, to)) continue;
    int64_t k = row * from.cols();
    while (std::isfinite(to.at(k / from.cols(), k % from.cols()))) ++k;
    const double value = Element(from, k / from.cols(), k % from.cols());
    return NonFinite(
        identity, field,
        absl::StrCat(field, ", row ", k / from.cols(), ", column ", k % from.cols(), " is ", value,
                     std::isfinite(value) ? ", whose square overflows; expected a smaller number"
                                          : "; expected a finite number"));
  }
  return absl::OkStatus();
}

// Weights the rows of `squares`; returns the sum of the weights.
template <typename T>
absl::StatusOr<double> ApplyWeights(const BatchIdentity& identity, const MatrixView& weights,
                                    Squares<T>& squares) {
  double sum = 0;
  for (int64_t row = 0; row < weights.rows(); ++row) {
    const double weight = Element(weights, row, 0);
    if (!std::isfinite(weight)) {
      return NonFinite(identity, "row_weights",
                       absl::StrCat("row_weights, row ", row, " is ", weight,
                                    "; expected a finite weight, 0 or above"));
    }
    if (weight < 0) {
      return BatchError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT", identity,
                        absl::StrCat("row_weights, row ", row, " is ", weight,
                                     "; expected a finite weight, 0 or above"),
                        {{"field", "row_weights"}});
    }
    sum += weight;
    for (int64_t col = 0; col < squares.shape.cols; ++col) {
      T& square = squares.at(row, col);
      square = static_cast<T>(weight * square);
      if (!std::isfinite(square)) {
        return NonFinite(identity, "row_weights",
                         absl::StrCat("row_weights, row ", row, " is ", weight,
                                      ", which makes a squared gradient overflow"));
      }
    }
  }
  if (sum >= kMinWeightSum && sum <= kMaxWeightSum) return sum;
  return BatchError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT", identity,
                    absl::StrCat("row_weights sum to ", sum, "; expected a positive sum, from ",
                                 kMinWeightSum, " to ", kMaxWeightSum),
                    {{"field", "row_weights"}});
}

// left·right/examples, with a row of ones below left if there is a bias. Returns the largest
// element.
template <typename T>
T Multiply(const Squares<T>& left, const Squares<T>& right, bool has_bias, double examples,
           Matrix<T>& product) {
  using Plan = kernels::AdvancePlan<T>;
  const kernels::TowerRows<T> rows = {.left = left.elements.get(),
                                      .right = right.elements.get(),
                                      .rows = left.shape.rows,
                                      .scale = 1 / examples};
  const Plan plan({.decay = 0,
                   .weight = 1,
                   .ones_column = has_bias,
                   .left_cols = left.shape.cols,
                   .right_cols = right.shape.cols,
                   .towers = {&rows, 1}});
  product.setZero(plan.rows(), plan.cols());
  T largest = 0;
  constexpr int64_t kCols = kPanelsPerTile * Plan::kTileCols;
  constexpr int64_t kRows = kPanelsPerTile * Plan::kTileRows;
  for (int64_t row = 0; row < plan.rows(); row += kRows) {
    for (int64_t col = 0; col < plan.cols(); col += kCols) {
      const T most = plan.Advance({.first_row = row,
                                   .last_row = std::min(row + kRows, plan.rows()),
                                   .first_col = col,
                                   .last_col = std::min(col + kCols, plan.cols())},
                                  /*find_largest=*/true, product.data(), product.data());
      if (!std::isfinite(most)) return most;
      largest = std::max(largest, most);
    }
  }
  return largest;
}

template <typename T>
absl::StatusOr<std::optional<double>> Reduce(const BatchIdentity& identity, const Batch& batch,
                                             const LayerShape& shape, double gradient_scale,
                                             Matrix<T>& contribution) {
  const int64_t rows = batch.inputs.rows();
  Squares<T> left(rows, shape.input_size, kernels::kLeftPanelLines);
  Squares<T> right(rows, shape.output_size, kernels::kRightPanelLines);
  absl::Status status = Square(identity, "inputs", batch.inputs, 1, false, left);
  for (size_t source = 0; status.ok() && source < batch.outputs_grads.size(); ++source) {
    status = Square(identity, absl::StrCat("outputs_grads[", source, "]"),
                    batch.outputs_grads[source], gradient_scale, source > 0, right);
  }
  if (!status.ok()) return status;
  std::optional<double> examples;
  if (batch.row_weights.present()) {
    const absl::StatusOr<double> sum = ApplyWeights(identity, batch.row_weights, right);
    if (!sum.ok()) return sum.status();
    examples = *sum;
  }
  const double divisor = examples.value_or(static_cast<double>(rows));
  if (std::isfinite(Multiply(left, right, shape.has_bias, divisor, contribution))) return examples;
  return NonFinite(identity, "inputs",
                   "the products of the squares of inputs and outputs_grads overflow the factor's "
                   "type; expected smaller numbers");
}

}  // namespace

std::optional<LayerShape> LayerShapeOf(const v1::FactorSpec& spec) {
  if (!spec.has_fully_connected_diagonal()) return std::nullopt;
  const v1::FullyConnectedDiagonal& layer = spec.fully_connected_diagonal();
  return LayerShape{.input_size = layer.input_size(),
                    .output_size = layer.output_size(),
                    .has_bias = layer.has_bias(),
                    .sources = std::max(spec.sources(), 1),
                    .dtype = spec.dtype() == v1::DATA_TYPE_FLOAT64 ? v1::DATA_TYPE_FLOAT64
                                                                   : v1::DATA_TYPE_FLOAT32};
}

bool Fits(const Batch& batch, const LayerShape& shape) {
  return batch.inputs.present() && batch.inputs.cols() == shape.input_size &&
         static_cast<int>(batch.outputs_grads.size()) == shape.sources &&
         std::ranges::all_of(batch.outputs_grads, [&](const MatrixView& grads) {
           return grads.present() && grads.cols() == shape.output_size;
         });
}

MatrixView Contribution::view() const {
  if (of_doubles.size() > 0) return of_doubles;
  return of_floats;
}

absl::StatusOr<Contribution> MakeContribution(const BatchIdentity& identity, const Batch& batch,
                                              const LayerShape& shape, double gradient_scale) {
  Contribution contribution;
  absl::StatusOr<std::optional<double>> examples =
      shape.dtype == v1::DATA_TYPE_FLOAT64
          ? Reduce(identity, batch, shape, gradient_scale, contribution.of_doubles)
          : Reduce(identity, batch, shape, gradient_scale, contribution.of_floats);
  if (!examples.ok()) return examples.status();
  contribution.examples = *examples;
  return contribution;
}

}  // namespace fisherd
