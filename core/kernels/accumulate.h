// Adds ready-made matrices to a moving average, in one pass over them.

#ifndef FISHERD_CORE_KERNELS_ACCUMULATE_H_
#define FISHERD_CORE_KERNELS_ACCUMULATE_H_

#include <cstdint>
#include <span>
#include <string>

namespace fisherd::kernels {

// What is added, element by element.
template <typename T>
struct Term {
  const T* elements = nullptr;
  double weight = 1;
};

// to[i] = decay·from[i] + Σ_k weight_k·term_k[i] for i < count: terms ascending, multiply-adds in
// 64 bits, rounded once to T. `to` may be `from`. Returns the largest element written (infinity or
// NaN if one is not finite). The same bits on every target that has FMA.
template <typename T>
T Accumulate(double decay, std::span<const Term<T>> terms, int64_t count, const T* from, T* to);

// The target that Accumulate runs on.
std::string AccumulateTarget();

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_ACCUMULATE_H_
