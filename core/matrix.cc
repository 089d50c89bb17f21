#include "core/matrix.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/element_type.h"

namespace fisherd::core {
namespace {

// A state of a few pages' worth of huge pages is walked row by row: with small ones, a page a row.
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kLarge = 2 * kHugePage;

}  // namespace

void AlignedFree::operator()(void* memory) const { std::free(memory); }

void* AllocateAligned(size_t bytes) {
  // 0 bytes could be answered with null.
  const size_t whole = bytes + 1;
  void* memory = nullptr;
  if (whole == 0) return nullptr;
  if (posix_memalign(&memory, bytes < kLarge ? kAlignment : kHugePage, whole) != 0) return nullptr;
  // A hint: where there are no huge pages, small ones do.
  if (bytes >= kLarge) madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

std::unique_ptr<Matrix> Matrix::New(const MatrixShape& shape) {
  AlignedArray<std::byte> data = MakeAlignedArray<std::byte>(shape.bytes());
  if (data == nullptr) return nullptr;
  return std::unique_ptr<Matrix>(new Matrix(shape, std::move(data)));
}

void Matrix::Fill(double value) {
  WithStateType(shape_.dtype, [&]<typename T>(std::type_identity<T>) {
    std::ranges::fill(elements<T>(), static_cast<T>(value));
  });
}

void Matrix::CopyFrom(const Matrix& other) {
  std::memcpy(data_.get(), other.data_.get(), shape_.bytes());
}

}  // namespace fisherd::core
