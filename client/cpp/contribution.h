// A batch reduced to what it adds to its factor, by the kernels that the server would have used.

#ifndef FISHERD_CLIENT_CONTRIBUTION_H_
#define FISHERD_CLIENT_CONTRIBUTION_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "client/cpp/batch_frames.h"
#include "fisherd/matrix.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/types.pb.h"

namespace fisherd {

// What the reduction needs to know of a FullyConnectedDiagonal factor.
struct LayerShape {
  int64_t input_size = 0;
  int64_t output_size = 0;
  bool has_bias = false;
  int sources = 1;
  v1::DataType dtype = v1::DATA_TYPE_FLOAT32;  // of the state: or FLOAT64

  int64_t rows() const { return input_size + has_bias; }  // H
  int64_t bytes() const { return rows() * output_size * (dtype == v1::DATA_TYPE_FLOAT64 ? 8 : 4); }
};

// nullopt for other kinds.
std::optional<LayerShape> LayerShapeOf(const v1::FactorSpec& spec);

// The batch, whose tensors have as many rows each, is one of that layer.
bool Fits(const Batch& batch, const LayerShape& shape);

// Σ_s C(s,t), already divided by N: [H, O] in the state's type.
struct Contribution {
  Matrix<float> of_floats;  // one of the two is empty
  Matrix<double> of_doubles;
  std::optional<double> examples;  // the sum of the row weights, if there are any

  MatrixView view() const;
};

// Of a batch that fits. INVALID_ARGUMENT names the tensor and the element: NON_FINITE_INPUT for a
// NaN, an infinity, or a square that overflows the state's type; BAD_ARGUMENT for row weights that
// are negative or whose sum is not positive.
absl::StatusOr<Contribution> MakeContribution(const BatchIdentity& identity, const Batch& batch,
                                              const LayerShape& shape, double gradient_scale);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_CONTRIBUTION_H_
