// The step as one writes it with a good BLAS: squares, summed over the sources first, and one sgemm
// with the moving average folded into alpha and beta.

#ifndef FISHERD_TESTS_BENCH_CORE_BLAS_PEER_H_
#define FISHERD_TESTS_BENCH_CORE_BLAS_PEER_H_

#include <functional>
#include <optional>
#include <string>

#include "core/compute_pool.h"
#include "tests/bench/core/problem.h"

namespace fisherd::bench {

// A library that was opened at run time, so that two of them, which define the same names, can
// live in one process, and none needs to be there.
class Blas {
 public:
  // Nothing if this machine does not have it.
  static std::optional<Blas> OpenBlas();
  static std::optional<Blas> Blis();

  // Which version it is, and whose processor's kernels it has chosen.
  const std::string& description() const { return description_; }

  // The squares are the helpers' and the caller's work (null: the caller's alone), the product that
  // of as many threads of its own.
  void Step(Problem& problem, core::ComputePool* helpers) const;

 private:
  // CBLAS: row-major 101, as it is 111, transposed 112.
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float* a, int lda, const float* b, int ldb, float beta, float* c,
                         int ldc);
  using Sgemv = void (*)(int order, int trans, int m, int n, float alpha, const float* a, int lda,
                         const float* x, int incx, float beta, float* y, int incy);

  // A handle, or null.
  static void* Load(const std::string& folder, const std::string& soname);
  explicit Blas(void* library);
  bool complete() const { return sgemm_ != nullptr && sgemv_ != nullptr && set_threads_; }

  std::string description_;
  Sgemm sgemm_ = nullptr;
  Sgemv sgemv_ = nullptr;
  std::function<void(int)> set_threads_;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_BLAS_PEER_H_
