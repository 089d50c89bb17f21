#include "core/tensor.h"

#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/error.h"

namespace fisherd::core {

int SizeOf(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return 4;
    case DataType::kFloat64:
      return 8;
    case DataType::kBfloat16:
    case DataType::kFloat16:
      return 2;
    case DataType::kUnspecified:
      break;
  }
  return 0;
}

std::string_view NameOf(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return "FLOAT32";
    case DataType::kFloat64:
      return "FLOAT64";
    case DataType::kBfloat16:
      return "BFLOAT16";
    case DataType::kFloat16:
      return "FLOAT16";
    case DataType::kUnspecified:
      break;
  }
  return "UNSPECIFIED";
}

double MaxOf(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return std::numeric_limits<float>::max();
    case DataType::kFloat64:
      return std::numeric_limits<double>::max();
    case DataType::kBfloat16:
      return 0x1.FEp127;
    case DataType::kFloat16:
      return 65504;
    case DataType::kUnspecified:
      break;
  }
  return 0;
}

std::string_view NameOf(TensorRole role) {
  switch (role) {
    case TensorRole::kInputs:
      return "inputs";
    case TensorRole::kOutputsGrads:
      return "outputs_grads";
    case TensorRole::kRowWeights:
      return "row_weights";
    case TensorRole::kResult:
      return "result";
    case TensorRole::kWeight:
      return "weight";
    case TensorRole::kBias:
      return "bias";
    case TensorRole::kContribution:
      return "contribution";
    case TensorRole::kUnspecified:
      break;
  }
  return "unspecified";
}

std::string Describe(const TensorSpec& tensor) {
  const bool has_source = tensor.role == TensorRole::kOutputsGrads || tensor.source != 0;
  return absl::StrFormat("%s%s %s [%s]", NameOf(tensor.role),
                         has_source ? absl::StrFormat("(source %d)", tensor.source) : "",
                         NameOf(tensor.dtype), absl::StrJoin(tensor.shape, ", "));
}

absl::StatusOr<int64_t> ElementCount(const std::vector<int64_t>& shape) {
  constexpr int64_t kMaxElements = (int64_t{1} << 62) / 8;
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 1 || size > kMaxElements / count) {
      return BadArgument("shape",
                         absl::StrFormat("shape is [%s]; expected sizes of at least 1, and at most "
                                         "2^59 elements in all",
                                         absl::StrJoin(shape, ", ")));
    }
    count *= size;
  }
  return count;
}

}  // namespace fisherd::core
