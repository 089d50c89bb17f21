// cuBLAS, from the machine that has it: half a gigabyte that nobody should have to carry.

#ifndef FISHERD_TESTS_BENCH_CUDA_CUBLAS_H_
#define FISHERD_TESTS_BENCH_CUDA_CUBLAS_H_

#include <cublas_v2.h>
#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace fisherd::cuda {

class Cublas {
 public:
  Cublas() {
    const char* const named = std::getenv("FISHERD_CUBLAS");
    for (const std::string& name :
         {std::string(named == nullptr ? "" : named), std::string("libcublas.so.13"),
          std::string("libcublas.so.12"), std::string("libcublas.so")}) {
      if (library_ == nullptr && !name.empty())
        library_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (library_ == nullptr) return;
    const auto create = Find<decltype(&cublasCreate_v2)>("cublasCreate_v2");
    sgemm_ = Find<decltype(&cublasSgemm_v2_64)>("cublasSgemm_v2_64");
    if (create == nullptr || create(&handle_) != CUBLAS_STATUS_SUCCESS) sgemm_ = nullptr;
  }

  bool there() const { return sgemm_ != nullptr; }

  // state[h, o] = beta·state[h, o] + alpha·Σ_n left[n, h]·right[n, o], all row-major.
  void Multiply(const float* left, int64_t left_stride, const float* right, int64_t right_stride,
                int64_t rows, int64_t height, int64_t width, float alpha, float beta,
                float* state) {
    sgemm_(handle_, CUBLAS_OP_N, CUBLAS_OP_T, width, height, rows, &alpha, right, right_stride,
           left, left_stride, &beta, state, width);
  }

 private:
  template <typename Function>
  Function Find(const char* name) {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_ = nullptr;
  cublasHandle_t handle_ = nullptr;
  decltype(&cublasSgemm_v2_64) sgemm_ = nullptr;
};

}  // namespace fisherd::cuda

#endif  // FISHERD_TESTS_BENCH_CUDA_CUBLAS_H_
