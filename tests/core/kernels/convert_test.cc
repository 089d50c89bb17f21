#include "core/kernels/convert.h"

#include <Eigen/Core>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace fisherd::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Small>
float Value(int bits) {
  return ToFloat(Small{static_cast<uint16_t>(bits)});
}

TEST(ConvertTest, Bfloat16MatchesEigen) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const float want = Eigen::numext::bit_cast<Eigen::bfloat16>(static_cast<uint16_t>(bits));
    const float got = Value<Bfloat16>(bits);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(want)) << bits;
    }
  }
}

TEST(ConvertTest, Float16MatchesEigen) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const float want = Eigen::half_impl::half_to_float(
        Eigen::half_impl::raw_uint16_to_half(static_cast<uint16_t>(bits)));
    const float got = Value<Float16>(bits);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(want)) << bits;
    }
  }
}

template <typename Small>
class SmallFloatTest : public ::testing::Test {};
using SmallFloats = ::testing::Types<Bfloat16, Float16>;
TYPED_TEST_SUITE(SmallFloatTest, SmallFloats);

TYPED_TEST(SmallFloatTest, RoundsItsOwnValuesToThemselves) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const float value = Value<TypeParam>(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(ToFloat(RoundTo<TypeParam>(value))));
    } else {
      EXPECT_EQ(RoundTo<TypeParam>(value).bits, bits);
    }
  }
}

// Between every two neighbours: the middle goes to the even one, and a little beside it decides,
// even by so little that a rounding to float on the way would lose it.
TYPED_TEST(SmallFloatTest, RoundsToNearestEven) {
  const int infinity = RoundTo<TypeParam>(kInfinity).bits;
  for (int bits = 0; bits < infinity; ++bits) {
    const double low = Value<TypeParam>(bits);
    // The step from the largest number on is as large as the one before it.
    const double high =
        bits + 1 < infinity ? Value<TypeParam>(bits + 1) : 2 * low - Value<TypeParam>(bits - 1);
    const double middle = (low + high) / 2;
    const int even = bits % 2 == 0 ? bits : bits + 1;
    for (const int sign : {1, -1}) {
      const int sign_bit = sign < 0 ? 0x8000 : 0;
      const double outward = sign * kInfinity;
      EXPECT_EQ(RoundTo<TypeParam>(sign * middle).bits, sign_bit | even) << bits;
      EXPECT_EQ(RoundTo<TypeParam>(std::nextafter(sign * middle, 0)).bits, sign_bit | bits);
      EXPECT_EQ(RoundTo<TypeParam>(std::nextafter(sign * middle, outward)).bits,
                sign_bit | (bits + 1));
    }
  }
}

TYPED_TEST(SmallFloatTest, RoundsTheEndsOfDouble) {
  for (const double tiny : {0.0, 0x1p-1074, 0x1p-1022, 0x1p-200}) {
    EXPECT_EQ(RoundTo<TypeParam>(tiny).bits, 0);
    EXPECT_EQ(RoundTo<TypeParam>(-tiny).bits, 0x8000);
  }
  for (const double huge : {std::numeric_limits<double>::max(), 0x1p200, kInfinity}) {
    EXPECT_EQ(ToFloat(RoundTo<TypeParam>(huge)), kInfinity);
    EXPECT_EQ(ToFloat(RoundTo<TypeParam>(-huge)), -kInfinity);
  }
  EXPECT_TRUE(std::isnan(ToFloat(RoundTo<TypeParam>(std::nan("")))));
}

template <typename T>
void ExpectUnalignedRoundTrip(double value) {
  std::byte bytes[sizeof(T) + 3];
  for (int offset = 0; offset < 3; ++offset) {
    Store<T>(value, bytes + offset);
    EXPECT_EQ(static_cast<double>(Load<T>(bytes + offset)), value);
  }
}

TEST(ConvertTest, LoadsAndStoresUnaligned) {
  ExpectUnalignedRoundTrip<float>(0x1p-149);  // a subnormal
  ExpectUnalignedRoundTrip<double>(0x1.23456789ABCDEp-1030);
  ExpectUnalignedRoundTrip<Bfloat16>(-0x1p-133);
  ExpectUnalignedRoundTrip<Float16>(0x1.8p-23);
}

TEST(ConvertTest, BytesAreLittleEndian) {
  std::byte bytes[8];
  Store<float>(1.5, bytes);
  EXPECT_EQ(bytes[3], std::byte{0x3F});
  EXPECT_EQ(bytes[2], std::byte{0xC0});
  Store<double>(-2, bytes);
  EXPECT_EQ(bytes[7], std::byte{0xC0});
  Store<Bfloat16>(1.5, bytes);
  EXPECT_EQ(bytes[1], std::byte{0x3F});
  EXPECT_EQ(bytes[0], std::byte{0xC0});
  Store<Float16>(1.5, bytes);
  EXPECT_EQ(bytes[1], std::byte{0x3E});
  EXPECT_EQ(bytes[0], std::byte{0x00});
}

}  // namespace
}  // namespace fisherd::kernels
