// Tensors as they travel: element types, roles, shapes.

#ifndef FISHERD_CORE_TENSOR_H_
#define FISHERD_CORE_TENSOR_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fisherd::core {

// Element types. Elements are little-endian.
enum class DataType { kUnspecified, kFloat32, kFloat64, kBfloat16, kFloat16 };

// Bytes of one element; 0 for kUnspecified.
int SizeOf(DataType type);
// "FLOAT32" and so on.
std::string_view NameOf(DataType type);
// The largest finite value of the type.
double MaxOf(DataType type);

// What a tensor is to a factor. Kinds to come add theirs.
enum class TensorRole {
  kUnspecified,
  kInputs,
  kOutputsGrads,
  kRowWeights,
  kResult,
  kWeight,
  kBias,
  kContribution
};

std::string_view NameOf(TensorRole role);

struct TensorSpec {
  TensorRole role = TensorRole::kUnspecified;
  int source = 0;
  DataType dtype = DataType::kUnspecified;
  std::vector<int64_t> shape;

  bool operator==(const TensorSpec&) const = default;
};

// "outputs_grads(source 2) FLOAT32 [128, 10]", for messages.
std::string Describe(const TensorSpec& tensor);

// Elements of a shape. INVALID_ARGUMENT for a size below 1, or if the elements times 8 bytes exceed
// 2^62.
absl::StatusOr<int64_t> ElementCount(const std::vector<int64_t>& shape);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_TENSOR_H_
