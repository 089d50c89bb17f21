#include "core/matrix.h"

#include <algorithm>
#include <cstdlib>

#include "core/element_type.h"

namespace fisherd::core {

void AlignedFree::operator()(void* memory) const { std::free(memory); }

void* AllocateAligned(size_t bytes) {
  // aligned_alloc wants a multiple of the alignment, and 0 bytes could be answered with null.
  const size_t lines = bytes / kAlignment + 1;
  if (lines > SIZE_MAX / kAlignment) return nullptr;
  return std::aligned_alloc(kAlignment, lines * kAlignment);
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

}  // namespace fisherd::core
