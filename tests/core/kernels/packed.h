// Packed rows in heap blocks of their own.

#ifndef FISHERD_TESTS_CORE_KERNELS_PACKED_H_
#define FISHERD_TESTS_CORE_KERNELS_PACKED_H_

#include <algorithm>
#include <new>
#include <ostream>
#include <vector>

#include "core/kernels/packed.h"

namespace fisherd::kernels {

// Aligned to a cache line and of exactly its size, so that AddressSanitizer sees a step beyond.
template <typename T>
class Block {
 public:
  Block(int64_t size, T fill)
      : size_(size), data_(new (std::align_val_t(64)) T[static_cast<size_t>(size)]) {
    std::fill_n(data_, size_, fill);
  }
  ~Block() { ::operator delete[](data_, std::align_val_t(64)); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  int64_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  const int64_t size_;
  T* const data_;
};

// Packed rows filled with what no kernel writes.
template <typename T>
class Packed {
 public:
  explicit Packed(const PackedShape& shape)
      : shape_(shape), block_(PackedSize<T>(shape), kUntouched) {}

  const PackedShape& shape() const { return shape_; }
  T* data() { return block_.data(); }
  const T* data() const { return block_.data(); }
  T& at(int64_t row, int64_t col) { return block_.data()[PackedIndex<T>(shape_, row, col)]; }
  T at(int64_t row, int64_t col) const { return block_.data()[PackedIndex<T>(shape_, row, col)]; }
  // All but the elements: each is as it was, or a zero.
  bool padding_is_clean() const {
    const int64_t padding = block_.size() - shape_.rows * shape_.cols;
    int64_t clean = 0;
    for (const T* x = block_.data(); x != block_.data() + block_.size(); ++x) {
      clean += *x == kUntouched || *x == 0;
    }
    return clean >= padding;
  }

  static constexpr T kUntouched = -7;

 private:
  const PackedShape shape_;
  Block<T> block_;
};

// The sizes of a step.
struct StepShape {
  int64_t inputs;
  int64_t outputs;
  std::vector<int64_t> rows;  // of every tower
};

inline std::ostream& operator<<(std::ostream& out, const StepShape& shape) {
  out << "[" << shape.inputs << ", " << shape.outputs << "], rows";
  for (const int64_t rows : shape.rows) out << " " << rows;
  return out;
}

}  // namespace fisherd::kernels

#endif  // FISHERD_TESTS_CORE_KERNELS_PACKED_H_
