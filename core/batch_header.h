// Everything about one tower's part of one step, except its elements.

#ifndef FISHERD_CORE_BATCH_HEADER_H_
#define FISHERD_CORE_BATCH_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/tensor.h"

namespace fisherd::core {

// 16 bytes that stand for a batch's header and elements. Compared, never recomputed.
using Digest = std::array<std::byte, 16>;

// The moving average of one step:  var ← decay·var + weight·C. The same from all towers.
struct StepParameters {
  double decay = 0;
  double weight = 0;

  bool operator==(const StepParameters&) const = default;
};

// The tower's tensors, or what they add, reduced by the sender.
enum class BatchForm { kRaw, kContribution };

struct BatchHeader {
  uint64_t incarnation = 0;
  int64_t step = 0;
  int tower = 0;
  int64_t rows = 0;  // N
  BatchForm form = BatchForm::kRaw;
  std::optional<double> decay;   // required; optional here so that its absence can be refused
  std::optional<double> weight;  // 1 − decay if absent
  double gradient_scale = 1;
  std::vector<TensorSpec> tensors;
  Digest digest{};
  uint64_t label = 0;
  std::optional<double> examples;  // of a contribution: what stood for N
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BATCH_HEADER_H_
