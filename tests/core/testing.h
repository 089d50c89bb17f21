// What the core's tests share: errors as matchers, elements as bytes, random data, and batches made
// of the reference's towers.

#ifndef FISHERD_TESTS_CORE_TESTING_H_
#define FISHERD_TESTS_CORE_TESTING_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/batch_header.h"
#include "core/element_type.h"
#include "core/error.h"
#include "core/kernels/reference.h"
#include "core/kinds/kind.h"

namespace fisherd::core {

namespace reference = kernels::reference;

// Code, reason and a part of the message of a status.
MATCHER_P3(IsError, code, reason, message, "") {
  const auto details = GetErrorDetails(arg);
  *result_listener << arg.ToString() << ", reason " << (details ? details->reason : "none");
  return arg.code() == code && details && details->reason == reason &&
         std::string(arg.message()).find(message) != std::string::npos;
}

inline std::string FieldOf(const absl::Status& status, const std::string& key = "field") {
  const auto details = GetErrorDetails(status);
  const auto found = details ? details->metadata.find(key) : decltype(details->metadata.end())();
  return details && found != details->metadata.end() ? found->second : "none";
}

// `values` as elements on the wire.
inline std::vector<std::byte> ToBytes(const std::vector<double>& values, DataType type) {
  return WithElementType(type, [&]<typename T>(std::type_identity<T>) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    for (size_t i = 0; i < values.size(); ++i) {
      kernels::Store<T>(values[i], bytes.data() + i * sizeof(T));
    }
    return bytes;
  });
}

inline std::vector<double> FromBytes(std::span<const std::byte> bytes, DataType type) {
  return WithElementType(type, [&]<typename T>(std::type_identity<T>) {
    std::vector<double> values(bytes.size() / sizeof(T));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = kernels::Load<T>(bytes.data() + i * sizeof(T));
    }
    return values;
  });
}

inline std::vector<double> ValuesOf(const Matrix& given) {
  const auto host = OnHost({std::shared_ptr<void>(), &given});
  EXPECT_EQ(host.status(), absl::OkStatus());
  const Matrix& matrix = **host;
  return WithStateType(matrix.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    const auto elements = matrix.elements<T>();
    return std::vector<double>(elements.begin(), elements.end());
  });
}

// `matrix` where `backend` keeps matrices.
inline std::unique_ptr<Matrix> MovedTo(Backend& backend, std::unique_ptr<Matrix> matrix) {
  auto moved = backend.NewMatrix(matrix->shape());
  EXPECT_EQ(moved->CopyFrom(*matrix), absl::OkStatus());
  return moved;
}

// In host memory.
inline std::unique_ptr<Matrix> MatrixOf(const MatrixShape& shape,
                                        const std::vector<double>& values) {
  auto matrix = Matrix::New(shape);
  WithStateType(shape.dtype, [&]<typename T>(std::type_identity<T>) {
    for (size_t i = 0; i < values.size(); ++i) matrix->elements<T>()[i] = values[i];
  });
  return matrix;
}

inline reference::Dense DenseOf(int64_t rows, int64_t cols, std::vector<double> values) {
  reference::Dense dense(rows, cols);
  dense.values = std::move(values);
  return dense;
}

// Normal numbers that bfloat16 and every wider type represent exactly.
inline reference::Dense RandomDense(std::mt19937& random, int64_t rows, int64_t cols) {
  reference::Dense dense(rows, cols);
  std::normal_distribution<double> normal;
  for (double& x : dense.values) {
    x = kernels::ToFloat(kernels::RoundTo<kernels::Bfloat16>(normal(random)));
    if (std::abs(x) < 0x1p-8) x = 0;
  }
  return dense;
}

inline reference::Tower RandomTower(std::mt19937& random, int64_t rows, int64_t inputs,
                                    int64_t outputs, int sources = 1) {
  reference::Tower tower{.inputs = RandomDense(random, rows, inputs)};
  for (int s = 0; s < sources; ++s) {
    tower.outputs_grads.push_back(RandomDense(random, rows, outputs));
  }
  return tower;
}

// The header that a trainer would send with `tower`, every tensor of type `wire`.
inline BatchHeader HeaderOf(const reference::Tower& tower, DataType wire) {
  BatchHeader header{.rows = tower.inputs.rows, .gradient_scale = tower.gradient_scale};
  header.tensors.push_back(
      {.role = TensorRole::kInputs, .dtype = wire, .shape = {header.rows, tower.inputs.cols}});
  for (size_t s = 0; s < tower.outputs_grads.size(); ++s) {
    header.tensors.push_back({.role = TensorRole::kOutputsGrads,
                              .source = static_cast<int>(s),
                              .dtype = wire,
                              .shape = {header.rows, tower.outputs_grads[s].cols}});
  }
  if (!tower.row_weights.empty()) {
    header.tensors.push_back(
        {.role = TensorRole::kRowWeights, .dtype = wire, .shape = {header.rows}});
  }
  return header;
}

// The tower's tensors in the order of its header, as they travel.
inline std::vector<std::vector<std::byte>> TensorBytes(const reference::Tower& tower,
                                                       DataType wire) {
  std::vector<std::vector<std::byte>> tensors = {ToBytes(tower.inputs.values, wire)};
  for (const auto& grads : tower.outputs_grads) tensors.push_back(ToBytes(grads.values, wire));
  if (!tower.row_weights.empty()) tensors.push_back(ToBytes(tower.row_weights, wire));
  return tensors;
}

// Fills `batch` tensor by tensor, and finishes it.
inline absl::Status Fill(Batch& batch, const reference::Tower& tower, DataType wire) {
  const auto tensors = TensorBytes(tower, wire);
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (absl::Status status = batch.Add(t, 0, tensors[t]); !status.ok()) return status;
  }
  return batch.Finish();
}

// The finished batch of `tower`, whole and in order.
inline std::unique_ptr<Batch> BatchOf(const Kind& kind, const reference::Tower& tower,
                                      DataType wire = DataType::kFloat32) {
  const BatchHeader header = HeaderOf(tower, wire);
  EXPECT_EQ(kind.CheckBatch(header), absl::OkStatus());
  std::unique_ptr<Batch> batch = kind.NewBatch(header, nullptr);
  EXPECT_EQ(Fill(*batch, tower, wire), absl::OkStatus());
  return batch;
}

// |got − want| ≤ tolerance·|want|, element by element.
inline void ExpectNear(const std::vector<double>& got, const std::vector<double>& want,
                       double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want[i]), tolerance * std::abs(want[i]))
        << "element " << i << " is " << got[i] << ", not " << want[i];
  }
}

}  // namespace fisherd::core

#endif  // FISHERD_TESTS_CORE_TESTING_H_
