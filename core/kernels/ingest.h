// The first kernel on a batch's way: elements as they travel become squares in packed rows, in one
// pass over memory.

#ifndef FISHERD_CORE_KERNELS_INGEST_H_
#define FISHERD_CORE_KERNELS_INGEST_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/kernels/convert.h"
#include "core/kernels/packed.h"

namespace fisherd::kernels {

// Elements first … first + count of a row-major matrix of to.shape, and what to do with them.
struct IngestRun {
  const std::byte* from = nullptr;  // `count` elements in the wire's type; need not be aligned
  int64_t first = 0;
  int64_t count = 0;
  double scale = 1;         // each element is multiplied by it, and rounded once to T
  bool accumulate = false;  // adds to what is there (a further source) instead of replacing it
};

// Writes (scale·x)² into, or adds it to, its place in `packed`, which has this shape and is
// aligned to a cache line. Returns the largest value written, 0 or above; infinity or NaN if one
// of the run's is not finite, be it the element, its square or the sum. The padding of
// their rows may become zeros. Thread-safe for runs that do not overlap.
//
// Wire is float, double, Bfloat16 or Float16; T, the state's type, is float or double. A sum over
// sources is x·x + sum with one rounding where the target has FMA.
template <typename Wire, typename T>
T Ingest(const IngestRun& run, const PackedShape& shape, T* packed);

// The target that Ingest runs on.
std::string IngestTarget();

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_INGEST_H_
