// The elements of a matrix in the memory of a device: what the host does with them.

#ifndef FISHERD_CORE_DEVICE_ELEMENTS_H_
#define FISHERD_CORE_DEVICE_ELEMENTS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kernels/power.h"
#include "core/tensor.h"

namespace fisherd::core {

// Where the elements of a tensor lie in a matrix.
struct ElementPlace {
  int64_t offset = 0;  // of the first element
  int64_t width = 0;   // > 0: transposed, elements of one output that follow on each other
};

// How elements are served: powers of those at `place`, as elements of `dtype`, computed in the
// state's type if that is it, else in 64 bits and rounded once.
struct ElementsSpec {
  ElementPlace place;
  kernels::PowerSpec power;
  DataType dtype = DataType::kFloat32;
};

// A row-major matrix of FLOAT32 or FLOAT64, see MatrixShape. Every method waits until it is done;
// UNAVAILABLE (DEVICE_LOST) if the device has failed. As thread-safe as memory: readers do not
// disturb each other. Spans lie in host memory, not necessarily aligned.
class DeviceElements {
 public:
  virtual ~DeviceElements() = default;

  // Bytes first … of all.
  virtual absl::Status Download(int64_t first, std::span<std::byte> to) const = 0;
  virtual absl::Status Upload(int64_t first, std::span<const std::byte> from) = 0;
  virtual absl::Status Fill(double value) = 0;
  // `other` is of the same shape and kind of device.
  virtual absl::Status CopyFrom(const DeviceElements& other) = 0;

  // As kernels/power.h, to the accuracy that it promises.
  virtual absl::StatusOr<kernels::Summary> Summarize(double divisor) const = 0;
  // Elements first … of a tensor; a whole number of them.
  virtual absl::Status Power(const ElementsSpec& spec, int64_t first,
                             std::span<std::byte> to) const = 0;
  // The same, times x, which like `to` is of the spec's dtype. Returns which product is the first
  // that is not finite, or their number.
  virtual absl::StatusOr<int64_t> PowerMultiply(const ElementsSpec& spec, int64_t first,
                                                std::span<const std::byte> x,
                                                std::span<std::byte> to) const = 0;
  // All elements' powers, in their own type, into others of the same shape and device.
  virtual absl::Status Materialize(const kernels::PowerSpec& power, DeviceElements& to) const = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_DEVICE_ELEMENTS_H_
