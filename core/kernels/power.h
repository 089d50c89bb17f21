// The kernel behind every read: a power of the damped covariance, and its product with a tensor,
// in one pass.

#ifndef FISHERD_CORE_KERNELS_POWER_H_
#define FISHERD_CORE_KERNELS_POWER_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace fisherd::kernels {

// v = matrix / divisor, or (v + damping)^exponent.
struct PowerSpec {
  double divisor = 1;
  bool powered = false;  // else v itself, and the rest does not matter
  double exponent = 1;
  double damping = 0;
};

// What a pass over v has seen of it. Of no elements: infinity, −infinity and 0.
struct Summary {
  double least = 0;
  double most = 0;
  double sum = 0;  // to T's precision; elements below 1e-35 (float) may be left out
};

// out[k] = (matrix[k]/divisor + damping)^exponent for k < count, elements of T, which is float or
// double. `matrix` is aligned for T, `out` need not be and may be `matrix`. Where the exponent is
// −1, −½, ½, 1 or 2 results are within 4 units in the last place of T, otherwise within a relative
// 1e-6 for float and 1e-12 for double, as long as matrix/divisor + damping and the result are
// normal numbers; v itself is within one. Zero to a positive power is 0, to the power 0 is 1. An
// element's bits do not depend on those beside it. Thread-safe.
template <typename T>
Summary Power(const PowerSpec& spec, const T* matrix, int64_t count, std::byte* out);

// The same, times x[k] (elements of T, not necessarily aligned), into out (likewise; may be x): to
// the power −1 a quotient, so that x·u^e has no more roundings than u^e. `largest` becomes the
// largest magnitude of a product: infinity or NaN if one is not finite.
template <typename T>
Summary PowerMultiply(const PowerSpec& spec, const T* matrix, const std::byte* x, int64_t count,
                      std::byte* out, T& largest);

// Only looks.
template <typename T>
Summary Summarize(const T* matrix, int64_t count, double divisor);

// The target that these run on.
std::string PowerTarget();

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_POWER_H_
