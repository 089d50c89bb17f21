// Large arrays as every contender gets them: aligned, in huge pages where the kernel gives them.

#ifndef FISHERD_TESTS_BENCH_CORE_MEMORY_H_
#define FISHERD_TESTS_BENCH_CORE_MEMORY_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "tests/bench/core/die.h"

namespace fisherd::bench {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// `size` elements, all zero and touched.
template <typename T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) : size_(size) {
    constexpr int64_t kHugePage = 2 << 20;
    const int64_t wanted = size * sizeof(T);
    const int64_t unit = wanted < kHugePage ? 4096 : kHugePage;
    const int64_t bytes = (wanted + unit) / unit * unit;
    data_.reset(static_cast<T*>(std::aligned_alloc(unit, bytes)));
    if (data_ == nullptr) Die("out of memory");
    if (unit == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
    std::fill_n(data_.get(), size, T{0});
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  std::span<T> span() { return {data(), static_cast<size_t>(size_)}; }
  std::span<const T> span() const { return {data(), static_cast<size_t>(size_)}; }

 private:
  int64_t size_ = 0;
  std::unique_ptr<T[], Free> data_;
};

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_MEMORY_H_
