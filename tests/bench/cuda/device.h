// A GPU for programs that end when something goes wrong.

#ifndef FISHERD_TESTS_BENCH_CUDA_DEVICE_H_
#define FISHERD_TESTS_BENCH_CUDA_DEVICE_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

namespace fisherd::cuda {

inline void Must(cudaError_t error, const char* what = "CUDA") {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// `count` elements in device memory, not initialised.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : count_(count) {
    Must(cudaMalloc(&data_, static_cast<size_t>(count) * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(std::span<const T> from) : DeviceArray(static_cast<int64_t>(from.size())) {
    Must(cudaMemcpy(data_, from.data(), from.size_bytes(), cudaMemcpyHostToDevice));
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(std::span<const T>(from)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  int64_t size() const { return count_; }
  std::vector<T> ToHost() const {
    std::vector<T> host(static_cast<size_t>(count_));
    Must(cudaMemcpy(host.data(), data_, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  // Every byte; all ones make NaNs.
  void Fill(int byte) { Must(cudaMemset(data_, byte, static_cast<size_t>(count_) * sizeof(T))); }

 private:
  T* data_ = nullptr;
  int64_t count_;
};

}  // namespace fisherd::cuda

#endif  // FISHERD_TESTS_BENCH_CUDA_DEVICE_H_
