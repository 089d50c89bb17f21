#include "core/kernels/ingest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/core/kernels/packed.h"
#include "tests/core/kernels/targets.h"

namespace fisherd::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename Wire>
std::vector<std::byte> Bytes(const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(Wire));
  for (size_t k = 0; k < values.size(); ++k) Store<Wire>(values[k], &bytes[k * sizeof(Wire)]);
  return bytes;
}

const PackedShape kShapes[] = {{1, 1, 1},  {1, 1, 3},   {3, 16, 1},  {2, 17, 1},   {5, 15, 1},
                               {2, 48, 3}, {3, 49, 3},  {2, 47, 3},  {1, 200, 3},  {4, 97, 3},
                               {7, 31, 3}, {2, 128, 1}, {3, 129, 1}, {2, 1000, 3}, {9, 8, 1},
                               {2, 24, 3}, {3, 25, 3},  {17, 35, 1}, {19, 53, 3}};

class IngestTest : public TargetTest {};

template <typename Wire>
double OnTheWire(double x) {
  std::byte bytes[sizeof(Wire)];
  Store<Wire>(x, bytes);
  return Load<Wire>(bytes);
}

template <typename T>
T SquareOf(double on_the_wire, double scale) {
  const T x = static_cast<T>(scale * on_the_wire);
  return x * x;
}

template <typename T>
T Accumulated(double on_the_wire, double scale, T there) {
  const T x = static_cast<T>(scale * on_the_wire);
  return TargetHasFma() ? std::fma(x, x, there) : x * x + there;
}

// Two sources, in runs of `run` elements from odd addresses.
template <typename Wire, typename T>
void CheckRuns(const PackedShape& shape, double scale, int64_t run) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> first(shape.rows * shape.cols), second(first.size());
  for (double& x : first) x = normal(random);
  for (double& x : second) x = normal(random);
  Packed<T> packed(shape);
  T largest = 0;
  for (const bool accumulate : {false, true}) {
    const std::vector<std::byte> bytes = Bytes<Wire>(accumulate ? second : first);
    for (int64_t k = 0; k < static_cast<int64_t>(first.size()); k += run) {
      const int64_t count = std::min<int64_t>(run, first.size() - k);
      std::vector<std::byte> odd(1 + count * sizeof(Wire));
      std::copy_n(&bytes[k * sizeof(Wire)], count * sizeof(Wire), &odd[1]);
      const IngestRun ingest{&odd[1], k, count, scale, accumulate};
      largest = std::max(largest, Ingest<Wire, T>(ingest, shape, packed.data()));
    }
  }
  T most = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      const int64_t k = row * shape.cols + col;
      const T one = SquareOf<T>(OnTheWire<Wire>(first[k]), scale);
      const T both = Accumulated<T>(OnTheWire<Wire>(second[k]), scale, one);
      ASSERT_EQ(packed.at(row, col), both) << "row " << row << ", column " << col;
      most = std::max({most, one, both});
    }
  }
  EXPECT_EQ(largest, most);
  EXPECT_TRUE(packed.padding_is_clean());
}

template <typename Wire, typename T>
void CheckShapes() {
  for (const PackedShape& shape : kShapes) {
    for (const double scale : {1.0, 32.0, 0.1, 1e-45}) {
      for (const int64_t run : {1, 7, 50, 100000}) {
        SCOPED_TRACE(testing::Message()
                     << "[" << shape.rows << ", " << shape.cols << "] panels of "
                     << shape.panel_lines << ", scale " << scale << ", runs of " << run);
        CheckRuns<Wire, T>(shape, scale, run);
      }
    }
  }
}

TEST_P(IngestTest, IsTheOneThatRuns) { EXPECT_EQ(IngestTarget(), GetParam()); }
TEST_P(IngestTest, Float32ToFloat32) { CheckShapes<float, float>(); }
TEST_P(IngestTest, Float64ToFloat32) { CheckShapes<double, float>(); }
TEST_P(IngestTest, Bfloat16ToFloat32) { CheckShapes<Bfloat16, float>(); }
TEST_P(IngestTest, Float16ToFloat32) { CheckShapes<Float16, float>(); }
TEST_P(IngestTest, Float32ToFloat64) { CheckShapes<float, double>(); }
TEST_P(IngestTest, Float64ToFloat64) { CheckShapes<double, double>(); }
TEST_P(IngestTest, Bfloat16ToFloat64) { CheckShapes<Bfloat16, double>(); }
TEST_P(IngestTest, Float16ToFloat64) { CheckShapes<Float16, double>(); }

// More than caches hold: another way through the panels.
TEST_P(IngestTest, ManyShortRows) {
  CheckRuns<float, float>({1100, 131, kLeftPanelLines}, 1, 100001);
  CheckRuns<float, float>({1100, 131, kRightPanelLines}, 1, 100001);
}

// One element among ones, at every place.
template <typename T>
T LargestWith(double x, int64_t place, int64_t count) {
  std::vector<double> values(count, 1);
  values[place] = x;
  const std::vector<std::byte> bytes = Bytes<double>(values);
  const PackedShape shape{1, count, kRightPanelLines};
  Packed<T> packed(shape);
  return Ingest<double, T>({bytes.data(), 0, count, 1, false}, shape, packed.data());
}

TEST_P(IngestTest, TellsWhatIsNotFinite) {
  for (int64_t place = 0; place < 61; ++place) {
    EXPECT_EQ(LargestWith<float>(kInfinity, place, 61), kInfinity);
    EXPECT_EQ(LargestWith<float>(-kInfinity, place, 61), kInfinity);
    EXPECT_TRUE(std::isnan(LargestWith<float>(NAN, place, 61)));
    EXPECT_TRUE(std::isnan(LargestWith<double>(-NAN, place, 61)));
    EXPECT_EQ(LargestWith<float>(0x1p64, place, 61), kInfinity);
    EXPECT_EQ(LargestWith<double>(0x1p512, place, 61), kInfinity);
    EXPECT_EQ(LargestWith<float>(-0x1p63, place, 61), 0x1p126f);
    EXPECT_EQ(LargestWith<double>(0x1p64, place, 61), 0x1p128);
  }
}

TEST_P(IngestTest, KeepsSubnormalsAndZeros) {
  const std::vector<std::byte> bytes = Bytes<float>({0, -0.0, 0x1p-74, 0x1p-149});
  const PackedShape shape{1, 4, kLeftPanelLines};
  Packed<float> packed(shape);
  EXPECT_EQ((Ingest<float, float>({bytes.data(), 0, 4, 1, false}, shape, packed.data())),
            0x1p-148f);
  EXPECT_EQ(packed.at(0, 0), 0);
  EXPECT_EQ(packed.at(0, 1), 0);
  EXPECT_FALSE(std::signbit(packed.at(0, 1)));
  EXPECT_EQ(packed.at(0, 2), 0x1p-148f);
  EXPECT_EQ(packed.at(0, 3), 0);
}

FISHERD_FOR_EVERY_TARGET(IngestTest);

}  // namespace
}  // namespace fisherd::kernels
