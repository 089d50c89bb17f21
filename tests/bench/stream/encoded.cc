#include "tests/bench/stream/encoded.h"

#include "tests/bench/core/die.h"
#include "tests/bench/stream/trainers.h"

namespace fisherd::bench {

std::vector<std::string> EncodeBytes(const BatchIdentity& identity, const Batch& batch) {
  const auto tensors = RawTensors(identity, batch);
  if (!tensors.ok()) Die(tensors.status().ToString());
  const auto encoded =
      EncodeBatch(identity, *tensors, {.decay = 0.95}, UpdateStreamOptions().max_frame,
                  std::make_shared<BufferPool>(0));
  if (!encoded.ok()) Die(encoded.status().ToString());
  std::vector<std::string> messages;
  for (const v1::UpdateRequest& message : (*encoded)->messages) {
    messages.push_back(message.SerializeAsString());
  }
  return messages;
}

std::vector<std::string> EncodeOne(int64_t batch_bytes) {
  const Matrix<float> half = Matrix<float>::Random(batch_bytes / kRowBytes, kLayerSize);
  return EncodeBytes({.factor = FactorName(0), .incarnation = 1, .step = 1},
                     {.inputs = half, .outputs_grads = {half}});
}

}  // namespace fisherd::bench
