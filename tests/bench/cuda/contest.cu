#include <algorithm>
#include <cstdarg>
#include <functional>
#include <vector>

#include "core/cuda/advance.h"
#include "core/cuda/ingest.h"
#include "core/cuda/packed.cuh"
#include "core/cuda/power.h"
#include "tests/bench/cuda/contest.h"
#include "tests/bench/cuda/cublas.h"
#include "tests/bench/cuda/device.h"

namespace fisherd::cuda {
namespace {

constexpr int kRounds = 7;
constexpr double kRoundMs = 12;

std::string Format(const char* format, ...) {
  char text[1000];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

class Stopwatch {
 public:
  Stopwatch() {
    Must(cudaEventCreate(&begin_));
    Must(cudaEventCreate(&end_));
  }
  // Milliseconds of one of `times` calls.
  double Time(const std::function<void()>& work, int times) {
    Must(cudaEventRecord(begin_));
    for (int i = 0; i < times; ++i) work();
    Must(cudaEventRecord(end_));
    Must(cudaEventSynchronize(end_));
    Must(cudaGetLastError());
    float ms = 0;
    Must(cudaEventElapsedTime(&ms, begin_, end_));
    return ms / times;
  }

 private:
  cudaEvent_t begin_, end_;
};

// Medians, in interleaved rounds.
std::vector<double> Time(const std::vector<std::function<void()>>& contenders) {
  Stopwatch watch;
  std::vector<int> times;
  for (const auto& work : contenders) {
    work();
    const double once = watch.Time(work, 2);
    times.push_back(static_cast<int>(std::clamp(kRoundMs / once, 1.0, 2000.0)));
  }
  std::vector<std::vector<double>> rounds(contenders.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t k = 0; k < contenders.size(); ++k)
      rounds[k].push_back(watch.Time(contenders[k], times[k]));
  }
  std::vector<double> medians;
  for (auto& all : rounds) {
    std::nth_element(all.begin(), all.begin() + kRounds / 2, all.end());
    medians.push_back(all[kRounds / 2]);
  }
  return medians;
}

__global__ void PeakKernel(float* to, int times) {
  float x[16];
  const float a = 1 + 1e-7f * threadIdx.x;
  for (int i = 0; i < 16; ++i) x[i] = i;
  for (int k = 0; k < times; ++k) {
#pragma unroll
    for (int i = 0; i < 16; ++i) x[i] = fmaf(x[i], a, 0.5f);
  }
  float sum = 0;
  for (int i = 0; i < 16; ++i) sum += x[i];
  if (sum == -1) to[0] = sum;
}

__global__ void CopyKernel(const float4* from, float4* to, int64_t count) {
  const int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (k < count) to[k] = from[k];
}

__global__ void FillKernel(float* to, int64_t count, float scale) {
  for (int64_t k = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; k < count;
       k += int64_t{gridDim.x} * blockDim.x) {
    const uint32_t hash = static_cast<uint32_t>(k) * 2654435761u;
    to[k] = scale * (static_cast<float>((hash ^ hash >> 15) & 0xffff) / 32768.0f - 1);
  }
}

void FillRandom(DeviceArray<float>& array, float scale) {
  FillKernel<<<1024, 256>>>(array.get(), array.size(), scale);
}

struct Machine {
  std::string name;
  double gflops = 0;  // FMA, float32, without tensor cores
  double gbps = 0;    // copy: bytes read and written
};

Machine Measure() {
  cudaDeviceProp properties;
  Must(cudaGetDeviceProperties(&properties, 0));
  Machine machine{.name = properties.name};
  DeviceArray<float> from(int64_t{1} << 28), to(int64_t{1} << 28);  // 1 GiB
  FillRandom(from, 1);
  constexpr int kTimes = 4096;
  const int blocks = properties.multiProcessorCount * 16;
  const std::vector<double> ms =
      Time({[&] { PeakKernel<<<blocks, 256>>>(to.get(), kTimes); },
            [&] {
              CopyKernel<<<1 << 18, 256>>>(reinterpret_cast<float4*>(from.get()),
                                           reinterpret_cast<float4*>(to.get()), 1 << 26);
            }});
  machine.gflops = 2.0 * 16 * kTimes * 256 * blocks / ms[0] / 1e6;
  machine.gbps = 2.0 * (1 << 30) / ms[1] / 1e6;
  return machine;
}

struct Shape {
  int64_t rows, inputs, outputs;
};

std::string ContestOf(const Shape& shape, const Machine& machine, Cublas& cublas) {
  const auto [rows, inputs, outputs] = shape;
  DeviceArray<float> a(rows * inputs), g(rows * outputs), state((inputs + 1) * outputs),
      copy((inputs + 1) * outputs);
  DeviceArray<float> left(rows * PaddedCols<float>(inputs)),
      right(rows * PaddedCols<float>(outputs));
  DeviceArray<uint64_t> largest(3);
  largest.Fill(0);
  FillRandom(a, 1);
  FillRandom(g, 1);
  FillRandom(state, 0);
  IngestSide<float> one{.cols = inputs, .to = left.get(), .largest = largest.get()};
  IngestSide<float> two{.cols = outputs, .to = right.get(), .largest = largest.get() + 1};
  one.from[0] = a.get();
  two.from[0] = g.get();
  const double weight = 0.05 / static_cast<double>(rows);
  const auto job_of = [&](bool bias, Precision precision) {
    return AdvanceRows<float>{.left = left.get(),
                              .right = right.get(),
                              .rows = rows,
                              .left_cols = inputs,
                              .right_cols = outputs,
                              .ones_column = bias,
                              .decay = 0.95,
                              .weight = weight,
                              .precision = precision};
  };
  DeviceArray<char> scratch(AdvanceScratchBytes(job_of(true, Precision::kFloat32)) + 1);
  const auto step = [&](bool bias, Precision precision) {
    Must(Ingest(one, two, rows, nullptr));
    const AdvanceRows<float> job = job_of(bias, precision);
    Must(Advance<float>(job, scratch.get(), state.get(), state.get(), largest.get() + 2, nullptr));
  };
  std::vector<std::function<void()>> contenders = {
      [&] { step(false, Precision::kFloat32); },
      [&] { step(true, Precision::kFloat32); },
      [&] { step(false, Precision::kTf32); },
      [&] { Must(Ingest(one, two, rows, nullptr)); },
      // Of a state, which is what a step of few rows reads and writes.
      [&] {
        Must(cudaMemcpyAsync(copy.get(), state.get(), static_cast<size_t>(inputs * outputs) * 4,
                             cudaMemcpyDeviceToDevice));
      },
  };
  if (cublas.there()) {
    contenders.push_back([&] {
      // Its squares. They do not lie as it thinks, which changes its sums and not its time.
      Must(Ingest(one, two, rows, nullptr));
      cublas.Multiply(left.get(), PaddedCols<float>(inputs), right.get(),
                      PaddedCols<float>(outputs), rows, inputs, outputs, static_cast<float>(weight),
                      0.95f, state.get());
    });
  }
  const std::vector<double> ms = Time(contenders);
  const double flops = 2.0 * rows * inputs * outputs;
  const double bytes = 4.0 * (2 * inputs * outputs + rows * (inputs + outputs));
  const double floor_ms = std::max(flops / machine.gflops, bytes / machine.gbps) / 1e6;
  const std::string name = Format("%ldx%ldx%ld", rows, inputs, outputs);
  const double peer = cublas.there() ? ms[5] : 0;
  std::printf("%-18s %9.4f %9.4f %9.4f %9.4f %9.4f | %9.4f | %5.0f%% %7.1f TFLOP/s %6.0f GB/s\n",
              name.c_str(), ms[0], ms[1], ms[2], ms[3], ms[4], peer, 100 * floor_ms / ms[0],
              flops / ms[0] / 1e9, bytes / ms[0] / 1e6);
  std::fflush(stdout);
  return Format(
      "{\"name\":\"%s\",\"rows\":%ld,\"inputs\":%ld,\"outputs\":%ld,\"ours_ms\":%.6g,\"bias_ms\":%."
      "6g,"
      "\"tf32_ms\":%.6g,\"ingest_ms\":%.6g,\"copy_ms\":%.6g,\"floor_ms\":%.6g,\"peers\":{%s}}",
      name.c_str(), rows, inputs, outputs, ms[0], ms[1], ms[2], ms[3], ms[4], floor_ms,
      cublas.there() ? Format("\"cublas\":%.6g", peer).c_str() : "");
}

std::string ContestOfPower(double exponent, const Machine& machine) {
  constexpr int64_t kCount = int64_t{1} << 28;
  DeviceArray<float> v(kCount), x(kCount);
  FillRandom(v, 0);
  FillRandom(x, 1);
  const double ms = Time({[&] {
    Must(Power<float>(v.get(), x.get(), kCount, 1, 0.5, exponent, x.get(), nullptr, nullptr));
  }})[0];
  const double share = 3.0 * 4 * kCount / ms / 1e6 / machine.gbps;
  std::printf("multiply, e = %-6g %8.3f ms, %3.0f %% of copy bandwidth\n", exponent, ms,
              100 * share);
  return Format("{\"exponent\":%g,\"ms\":%.6g,\"share\":%.4g}", exponent, ms, share);
}

}  // namespace

std::string RunContest() {
  const Machine machine = Measure();
  Cublas cublas;
  std::printf("%s: %.1f TFLOP/s of float32 multiply-adds, copies %.0f GB/s; cuBLAS %s\n\n",
              machine.name.c_str(), machine.gflops / 1e3, machine.gbps,
              cublas.there() ? "is there" : "is not there");
  std::printf("%-18s %9s %9s %9s %9s %9s | %9s | %6s\n", "ms", "ours", "bias", "tf32", "ingest",
              "copy", "cublas", "floor");
  std::string results, powers;
  for (const Shape& shape :
       {Shape{1, 1024, 1024}, Shape{8, 4096, 4096}, Shape{32, 1024, 1024}, Shape{64, 4096, 4096},
        Shape{128, 784, 1000}, Shape{128, 1024, 1024}, Shape{256, 64, 10}, Shape{512, 1024, 4096},
        Shape{2048, 512, 512}, Shape{8192, 768, 3072}, Shape{127, 1023, 1025},
        Shape{16384, 4096, 4096}, Shape{4096, 8192, 28672}, Shape{1, 16384, 16384}}) {
    results += (results.empty() ? "" : ",") + ContestOf(shape, machine, cublas);
  }
  for (const double e : {-1.0, -0.5, -0.75}) {
    powers += (powers.empty() ? "" : ",") + ContestOfPower(e, machine);
  }
  return Format("{\"machine\":{\"name\":\"%s\",\"gflops\":%.6g,\"gbps\":%.6g},",
                machine.name.c_str(), machine.gflops, machine.gbps) +
         "\"results\":[" + results + "],\"multiply\":[" + powers + "]}\n";
}

}  // namespace fisherd::cuda
