// Elements as they travel (little-endian, not necessarily aligned) to and from C++ numbers.

#ifndef FISHERD_CORE_KERNELS_CONVERT_H_
#define FISHERD_CORE_KERNELS_CONVERT_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fisherd::kernels {

static_assert(std::endian::native == std::endian::little, "elements are copied as they are");

// The upper half of an IEEE binary32.
struct Bfloat16 {
  static constexpr int kExponentBits = 8;
  static constexpr int kMantissaBits = 7;
  uint16_t bits = 0;
};

// IEEE binary16.
struct Float16 {
  static constexpr int kExponentBits = 5;
  static constexpr int kMantissaBits = 10;
  uint16_t bits = 0;
};

inline float ToFloat(Bfloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

inline float ToFloat(Float16 x) {
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
  const uint32_t magnitude = uint32_t{x.bits & 0x7FFFu} << 13;
  // Only the exponent's bias is wrong, by 112; the product is exact, for subnormals too. Infinity
  // and NaN come out finite, with their mantissa.
  const float finite = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = (x.bits & 0x7C00) == 0x7C00 ? 0x7F800000 : 0;
  return std::bit_cast<float>(sign | special | std::bit_cast<uint32_t>(finite));
}

// `x` rounded once, to nearest even, to a 16-bit float with the given fields. (By way of float it
// would be rounded twice.)
template <typename Small>
Small RoundTo(double x) {
  constexpr int kDrop = 52 - Small::kMantissaBits;
  constexpr int kBiasDifference = 1023 - ((1 << (Small::kExponentBits - 1)) - 1);
  constexpr uint64_t kInfinity = ((uint64_t{1} << Small::kExponentBits) - 1)
                                 << Small::kMantissaBits;
  const auto bits = std::bit_cast<uint64_t>(x);
  const auto sign = static_cast<uint16_t>(bits >> 63 << 15);
  const uint64_t magnitude = bits & ~(uint64_t{1} << 63);
  const auto exponent = static_cast<int>(magnitude >> 52) - kBiasDifference;
  const auto rounded = [](uint64_t value, int drop) {
    const uint64_t odd = value >> drop & 1;
    return (value + (uint64_t{1} << (drop - 1)) - 1 + odd) >> drop;
  };
  uint64_t result;
  if (magnitude > uint64_t{0x7FF} << 52) {
    result = kInfinity | uint64_t{1} << (Small::kMantissaBits - 1);  // a quiet NaN
  } else if (exponent >= 1) {
    result = rounded(magnitude - (uint64_t{kBiasDifference} << 52), kDrop);
    if (result > kInfinity) result = kInfinity;
  } else if (exponent >= -Small::kMantissaBits) {  // a subnormal, or the step up from below one
    const uint64_t significand = (magnitude & ((uint64_t{1} << 52) - 1)) | uint64_t{1} << 52;
    result = rounded(significand, kDrop + 1 - exponent);
  } else {
    result = 0;
  }
  return Small{static_cast<uint16_t>(sign | result)};
}

// Reads one element: a double for double, a float for every narrower type.
template <typename T>
inline auto Load(const std::byte* from) {
  T x;
  std::memcpy(&x, from, sizeof(T));
  if constexpr (std::is_floating_point_v<T>) {
    return x;
  } else {
    return ToFloat(x);
  }
}

// `x` rounded once, to nearest even, to T; infinite if it is beyond T.
template <typename T>
inline T Round(double x) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(x);
  } else {
    return RoundTo<T>(x);
  }
}

// Writes one element, rounded as by Round.
template <typename T>
inline void Store(double x, std::byte* to) {
  const T rounded = Round<T>(x);
  std::memcpy(to, &rounded, sizeof(T));
}

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_CONVERT_H_
