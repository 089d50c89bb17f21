#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>

#include "core/cuda/advance.h"
#include "core/cuda/ingest.h"
#include "core/cuda/packed.cuh"
#include "core/cuda/power.h"
#include "tests/bench/cuda/checks.h"
#include "tests/bench/cuda/device.h"

namespace fisherd::cuda {
namespace {

struct Case {
  int64_t rows, inputs, outputs;
  int sources = 1;
  bool bias = true;
  bool weighted = false;
};

template <typename T>
constexpr uint64_t kInfinity = sizeof(T) == 4 ? uint64_t{0x7f800000} << 32 : 0x7ff0000000000000;

template <typename Wire>
constexpr WireType kWire = std::is_same_v<Wire, float>           ? WireType::kFloat32
                           : std::is_same_v<Wire, double>        ? WireType::kFloat64
                           : std::is_same_v<Wire, __nv_bfloat16> ? WireType::kBFloat16
                                                                 : WireType::kFloat16;

template <typename Wire>
double AsDouble(Wire x) {
  if constexpr (sizeof(Wire) == 2) {
    return static_cast<float>(x);
  } else {
    return x;
  }
}

class Checker {
 public:
  void Expect(bool holds, const std::string& what) {
    ++checks_;
    if (holds) return;
    ++failed_;
    std::printf("FAILED: %s\n", what.c_str());
  }
  void ExpectAtMost(double error, double bound, const std::string& what) {
    Expect(error <= bound, what + ": error " + std::to_string(error * 1e6) + "e-6");
  }
  int checks() const { return checks_; }
  int failed() const { return failed_; }

 private:
  int checks_ = 0;
  int failed_ = 0;
};

template <typename Wire>
std::vector<Wire> Random(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<Wire> values(static_cast<size_t>(count));
  for (Wire& value : values) value = static_cast<Wire>(normal(random));
  return values;
}

// A batch in device memory, as it was sent and as squares.
template <typename T, typename Wire>
class Batch {
 public:
  explicit Batch(const Case& c, unsigned seed = 1)
      : c_(c),
        inputs_(Random<Wire>(c.rows * c.inputs, seed)),
        device_inputs_(inputs_),
        left_(c.rows * PaddedCols<T>(c.inputs)),
        right_(c.rows * PaddedCols<T>(c.outputs)),
        weights_(static_cast<size_t>(c.rows), 1.0),
        largest_(2) {
    for (int s = 0; s < c.sources; ++s) {
      grads_.push_back(Random<Wire>(c.rows * c.outputs, seed + 1 + static_cast<unsigned>(s)));
      device_grads_.push_back(std::make_unique<DeviceArray<Wire>>(grads_.back()));
    }
    if (c.weighted) {
      for (size_t row = 0; row < weights_.size(); ++row) weights_[row] = row % 5 * 0.25;
    }
    device_weights_ = std::make_unique<DeviceArray<double>>(weights_);
    left_.Fill(0xff);
    right_.Fill(0xff);
    largest_.Fill(0);
    IngestSide<T> left{
        .type = kWire<Wire>, .cols = c.inputs, .to = left_.get(), .largest = largest_.get()};
    left.from[0] = device_inputs_.get();
    IngestSide<T> right{.sources = c.sources,
                        .type = kWire<Wire>,
                        .cols = c.outputs,
                        .scale = kScale,
                        .to = right_.get(),
                        .largest = largest_.get() + 1};
    for (int s = 0; s < c.sources; ++s) right.from[s] = device_grads_[s]->get();
    if (c.weighted) right.weights = device_weights_->get();
    Must(Ingest(left, right, c.rows, nullptr));
  }

  std::vector<T> Advance(double decay, double weight, const std::vector<T>& from, bool in_place,
                         Precision precision = Precision::kFloat32) {
    DeviceArray<T> state(from), beside(static_cast<int64_t>(from.size()));
    beside.Fill(0xff);
    DeviceArray<uint64_t> most(1);
    most.Fill(0);
    T* const to = in_place ? state.get() : beside.get();
    const AdvanceRows<T> rows{.left = left_.get(),
                              .right = right_.get(),
                              .rows = c_.rows,
                              .left_cols = c_.inputs,
                              .right_cols = c_.outputs,
                              .ones_column = c_.bias,
                              .decay = decay,
                              .weight = weight,
                              .precision = precision};
    DeviceArray<char> scratch(AdvanceScratchBytes(rows) + 1);
    scratch.Fill(0xff);
    Must(cuda::Advance<T>(rows, scratch.get(), state.get(), to, most.get(), nullptr));
    Must(cudaDeviceSynchronize());
    largest_written_ = most.ToHost()[0];
    return (in_place ? state : beside).ToHost();
  }

  // Of up to some 4000 elements, evenly spread.
  double ErrorOf(double decay, double weight, const std::vector<T>& from,
                 const std::vector<T>& got) {
    const int64_t height = c_.inputs + c_.bias;
    const int64_t size = height * c_.outputs;
    const int64_t stride = std::max<int64_t>(size / 4000, 1);
    double worst = 0;
    for (int64_t at = 0; at < size; at += stride) {
      const int64_t h = at / c_.outputs;
      const int64_t o = at % c_.outputs;
      double sum = 0;
      for (int64_t n = 0; n < c_.rows; ++n) {
        double squares = 0;
        for (const auto& grads : grads_) {
          const double g = kScale * AsDouble(grads[n * c_.outputs + o]);
          squares += g * g;
        }
        const double a = h < c_.inputs ? AsDouble(inputs_[n * c_.inputs + h]) : 1;
        sum += a * a * squares * weights_[n];
      }
      const double expected = decay * from[at] + weight * sum;
      const double error = std::abs(got[at] - expected) / std::max(std::abs(expected), 1e-30);
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
    }
    return worst;
  }

  uint64_t largest_written() const { return largest_written_; }
  uint64_t largest_square() const {
    const std::vector<uint64_t> both = largest_.ToHost();
    return std::max(both[0], both[1]);
  }

 private:
  static constexpr double kScale = 1.5;
  const Case c_;
  std::vector<Wire> inputs_;
  std::vector<std::vector<Wire>> grads_;
  DeviceArray<Wire> device_inputs_;
  std::vector<std::unique_ptr<DeviceArray<Wire>>> device_grads_;
  DeviceArray<T> left_, right_;
  std::vector<double> weights_;
  std::unique_ptr<DeviceArray<double>> device_weights_;
  DeviceArray<uint64_t> largest_;
  uint64_t largest_written_ = 0;
};

template <typename T, typename Wire>
double CheckAdvance(Checker& check, const Case& c, double bound, const std::string& types) {
  const std::string what = types + " " + std::to_string(c.rows) + "x" + std::to_string(c.inputs) +
                           "x" + std::to_string(c.outputs) + (c.bias ? " bias" : "") + " s" +
                           std::to_string(c.sources);
  Batch<T, Wire> batch(c);
  std::vector<T> from(static_cast<size_t>((c.inputs + c.bias) * c.outputs));
  for (size_t k = 0; k < from.size(); ++k) from[k] = static_cast<T>(k % 13 * 0.1);
  const double weight = 0.1 / static_cast<double>(c.rows);
  const std::vector<T> got = batch.Advance(0.9, weight, from, false);
  const double error = batch.ErrorOf(0.9, weight, from, got);
  check.ExpectAtMost(error, bound, what);
  check.Expect(batch.Advance(0.9, weight, from, true) == got, what + ": in place, the same bits");
  T most = 0;
  for (const T value : got) most = std::max(most, value);
  uint64_t bits = 0;
  if constexpr (sizeof(T) == 4) {
    uint32_t half;
    std::memcpy(&half, &most, 4);
    bits = uint64_t{half} << 32;
  } else {
    std::memcpy(&bits, &most, 8);
  }
  check.Expect(batch.largest_written() == bits, what + ": the largest element");
  check.Expect(batch.largest_square() < kInfinity<T>, what + ": squares are finite");
  const std::vector<T> spoilt(from.size(), std::numeric_limits<T>::quiet_NaN());
  const std::vector<T> fresh = batch.Advance(0, weight, spoilt, false);
  check.ExpectAtMost(batch.ErrorOf(0, weight, std::vector<T>(from.size()), fresh), bound,
                     what + ": decay 0");
  return error;
}

// What is not finite is seen, wherever it is.
template <typename T>
void CheckNonFinite(Checker& check) {
  for (const double bad : {std::nan(""), -std::nan(""), double{INFINITY}, 1e200}) {
    for (const int64_t at : {0, 6, 14}) {
      std::vector<double> values(15, 1.0);
      values[static_cast<size_t>(at)] = bad;
      const DeviceArray<double> sent(values);
      DeviceArray<T> left(5 * PaddedCols<T>(3)), right(5 * PaddedCols<T>(3));
      DeviceArray<uint64_t> largest(1);
      largest.Fill(0);
      IngestSide<T> side{.type = WireType::kFloat64, .cols = 3, .to = left.get()};
      side.from[0] = sent.get();
      IngestSide<T> other = side;
      other.to = right.get();
      other.largest = largest.get();
      Must(Ingest(side, other, 5, nullptr));
      Must(cudaDeviceSynchronize());
      check.Expect(largest.ToHost()[0] >= kInfinity<T>, "not finite, at " + std::to_string(at));
    }
  }
  // SPEC §7: A = [[1,2],[3,4]], G = [[1,−1],[2,0.5]], N = 2.
  const DeviceArray<float> a(std::vector<float>{1, 2, 3, 4}), g(std::vector<float>{1, -1, 2, 0.5});
  DeviceArray<T> left(2 * PaddedCols<T>(2)), right(2 * PaddedCols<T>(2)), state(6);
  IngestSide<T> one{.cols = 2, .to = left.get()}, two{.cols = 2, .to = right.get()};
  one.from[0] = a.get();
  two.from[0] = g.get();
  Must(Ingest(one, two, 2, nullptr));
  Must(Advance<T>({.left = left.get(),
                   .right = right.get(),
                   .rows = 2,
                   .left_cols = 2,
                   .right_cols = 2,
                   .ones_column = true,
                   .decay = 0,
                   .weight = 0.5},
                  nullptr, state.get(), state.get(), nullptr, nullptr));
  Must(cudaDeviceSynchronize());
  check.Expect(state.ToHost() == std::vector<T>{18.5, 1.625, 34, 4, 2.5, 0.625}, "golden values");
}

template <typename T>
double CheckPower(Checker& check, double exponent, double bound) {
  constexpr int64_t kCount = 10'007;
  std::vector<T> v = Random<T>(kCount, 7), x = Random<T>(kCount, 8);
  for (size_t k = 0; k < v.size(); ++k) {
    v[k] = v[k] * v[k] * static_cast<T>(std::pow(10.0, static_cast<int>(k % 9) - 4));
  }
  v[3] = 0;
  const double scale = 1 / 0.75, damping = 1e-3;
  DeviceArray<T> dv(v), dx(x), to(kCount + 1);
  double worst = 0;
  for (const int shift : {0, 1}) {  // aligned to 16 bytes, and not
    for (const bool multiplied : {false, true}) {
      to.Fill(0xff);
      Must(Power<T>(dv.get() + shift, multiplied ? dx.get() + shift : nullptr, kCount - shift,
                    scale, damping, exponent, to.get() + shift, nullptr, nullptr));
      Must(cudaDeviceSynchronize());
      const std::vector<T> got = to.ToHost();
      for (int64_t k = shift; k < kCount; ++k) {
        const double expected = std::pow(scale * v[k] + damping, exponent) *
                                (multiplied ? static_cast<double>(x[k]) : 1);
        const double error = std::abs(got[k] - expected) / std::max(std::abs(expected), 1e-300);
        worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
      }
    }
  }
  check.ExpectAtMost(worst, bound, "power " + std::to_string(exponent));
  return worst;
}

}  // namespace

int RunChecks(bool quick) {
  Checker check;
  std::vector<Case> cases = {{1, 1, 1},       {1, 130, 67},   {2, 3, 5},    {7, 64, 512},
                             {8, 33, 1000},   {16, 33, 17},   {17, 33, 17}, {31, 127, 129},
                             {32, 128, 128},  {33, 129, 131}, {64, 1, 1},   {96, 300, 2},
                             {255, 200, 100}, {300, 257, 63}};
  const size_t small = cases.size();
  for (size_t k = 0; k < small; ++k) {
    Case c = cases[k];
    c.bias = false;
    c.sources = 3;
    c.weighted = c.rows > 4;
    cases.push_back(c);
  }
  if (!quick) {
    for (const Case& c : {Case{4096, 256, 256}, Case{4096, 1000, 784, 4}, Case{65536, 96, 100},
                          Case{300, 2050, 2100}})
      cases.push_back(c);
  }
  double worst = 0, worst_deep = 0, worst_double = 0;
  for (const Case& c : cases) {
    double& most = c.rows <= 4096 ? worst : worst_deep;
    most = std::max(most, CheckAdvance<float, float>(check, c, 1e-6, "float32"));
    worst_double = std::max(worst_double, CheckAdvance<double, double>(check, c, 1e-12, "float64"));
  }
  for (const Case& c : {Case{40, 65, 30, 2}, Case{5, 6, 7}}) {
    CheckAdvance<float, double>(check, c, 1e-6, "float64 to float32");
    CheckAdvance<float, __nv_bfloat16>(check, c, 1e-6, "bfloat16 to float32");
    CheckAdvance<float, __half>(check, c, 1e-6, "float16 to float32");
    CheckAdvance<double, float>(check, c, 1e-12, "float32 to float64");
  }
  CheckNonFinite<float>(check);
  CheckNonFinite<double>(check);
  double powers = 0, powers_double = 0;
  for (const double e : {-1.0, -0.5, 0.5, 1.0, 2.0, -0.75, 0.3, 0.0}) {
    powers = std::max(powers, CheckPower<float>(check, e, 1e-6));
    powers_double = std::max(powers_double, CheckPower<double>(check, e, 1e-14));
  }
  Batch<float, float> batch({.rows = 1024, .inputs = 128, .outputs = 128});
  const std::vector<float> none(129 * 128);
  const double tf32 = batch.ErrorOf(0, 1, none, batch.Advance(0, 1, none, false, Precision::kTf32));
  check.ExpectAtMost(tf32, 2e-3, "tf32");
  std::printf(
      "largest relative errors: a step %.2g (float32; of 65536 rows %.2g), %.2g (float64), %.2g "
      "(tf32); power %.2g, %.2g\n",
      worst, worst_deep, worst_double, tf32, powers, powers_double);
  std::printf("%d passed, %d failed\n", check.checks() - check.failed(), check.failed());
  return check.failed();
}

}  // namespace fisherd::cuda
