// The streaming calls that move tensors: Read and Multiply.

#ifndef FISHERD_CLIENT_TENSOR_TRANSFER_H_
#define FISHERD_CLIENT_TENSOR_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {

// Sizes of a result that is split into weight and bias.
struct ResultShape {
  int64_t weight_rows = 0;
  int64_t weight_cols = 0;
  int64_t bias_size = 0;

  int64_t weight_size() const { return weight_rows * weight_cols; }
  int64_t size() const { return weight_size() + bias_size; }
};

// What the header's tensors say: WEIGHT, of two axes, then perhaps BIAS, of one, both of `dtype`.
// DATA_LOSS (MALFORMED_FRAME) for anything else.
absl::StatusOr<ResultShape> CheckTensors(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& tensors, v1::DataType dtype);

// Makes the memory for an answer: the weight's elements and, if it has one, the bias's.
using Allocate = std::function<std::vector<std::span<std::byte>>(const ResultShape& shape)>;

// Reads a whole operator; `request` asks for split_bias and a dtype. An unchanged one allocates
// nothing. Blocks.
absl::StatusOr<v1::ReadHeader> ReadTensors(
    v1::FactorService::StubInterface& stub, const v1::ReadRequest& request, absl::Time deadline,
    const std::function<void(int64_t done, int64_t total)>& progress, const Allocate& allocate);

// One factor's part of a Multiply; `header` asks for split_bias and a dtype.
struct Multiplication {
  v1::MultiplyHeader header;
  // The weight's elements and, if it has one, the bias's.
  std::vector<std::span<const std::byte>> x;
  Allocate allocate;  // for the product
};

// Multiplies all of them in one call; the answers are in their order. Blocks.
absl::StatusOr<std::vector<v1::MultiplyResponseHeader>> MultiplyTensors(
    v1::FactorService::StubInterface& stub, const std::vector<Multiplication>& multiplications,
    absl::Time deadline);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_TENSOR_TRANSFER_H_
