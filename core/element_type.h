// From a DataType to the C++ type of its elements.

#ifndef FISHERD_CORE_ELEMENT_TYPE_H_
#define FISHERD_CORE_ELEMENT_TYPE_H_

#include <type_traits>

#include "core/kernels/convert.h"
#include "core/tensor.h"

namespace fisherd::core {

// Calls f(std::type_identity<T>()) with the element type that `type` (not kUnspecified) names, and
// returns its result.
template <typename F>
decltype(auto) WithElementType(DataType type, F&& f) {
  switch (type) {
    case DataType::kFloat64:
      return f(std::type_identity<double>());
    case DataType::kBfloat16:
      return f(std::type_identity<kernels::Bfloat16>());
    case DataType::kFloat16:
      return f(std::type_identity<kernels::Float16>());
    default:
      return f(std::type_identity<float>());
  }
}

// The same for the types that a state may have, FLOAT32 and FLOAT64.
template <typename F>
decltype(auto) WithStateType(DataType type, F&& f) {
  if (type == DataType::kFloat64) return f(std::type_identity<double>());
  return f(std::type_identity<float>());
}

}  // namespace fisherd::core

#endif  // FISHERD_CORE_ELEMENT_TYPE_H_
