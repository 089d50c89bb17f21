// A matrix on a card, as the core sees it.

#ifndef FISHERD_CORE_CUDA_BACKEND_ELEMENTS_H_
#define FISHERD_CORE_CUDA_BACKEND_ELEMENTS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cuda/card.h"
#include "core/device_elements.h"
#include "core/matrix.h"

namespace fisherd::core {

// "cuda:0".
std::string DeviceName(const cuda::Card& card);

// UNAVAILABLE (DEVICE_LOST) once the card has failed.
absl::Status CheckCard(const cuda::Card& card);

// Thread-safe as DeviceElements says. The card outlives it.
class CudaElements final : public DeviceElements {
 public:
  // Takes `data`, of the card, for its own.
  CudaElements(cuda::Card& card, const MatrixShape& shape, void* data)
      : card_(card), shape_(shape), data_(data) {}
  ~CudaElements() override { card_.Free(data_); }

  absl::Status Download(int64_t first, std::span<std::byte> to) const override;
  absl::Status Upload(int64_t first, std::span<const std::byte> from) override;
  absl::Status Fill(double value) override;
  absl::Status CopyFrom(const DeviceElements& other) override;
  absl::StatusOr<kernels::Summary> Summarize(double divisor) const override;
  absl::Status Power(const ElementsSpec& spec, int64_t first,
                     std::span<std::byte> to) const override;
  absl::StatusOr<int64_t> PowerMultiply(const ElementsSpec& spec, int64_t first,
                                        std::span<const std::byte> x,
                                        std::span<std::byte> to) const override;
  absl::Status Materialize(const kernels::PowerSpec& power, DeviceElements& to) const override;

  void* data() const { return data_; }

 private:
  template <typename T>
  T* elements() const {
    return static_cast<T*>(data_);
  }
  std::byte* bytes() const { return static_cast<std::byte*>(data_); }
  // Runs `work(type, lane)`, which says whether it is good, as kernels without copies before them.
  template <typename Work>
  absl::Status Run(const Work& work) const;
  // Powers, times x unless that is empty.
  absl::StatusOr<int64_t> Serve(const ElementsSpec& spec, int64_t first,
                                std::span<const std::byte> x, std::span<std::byte> to) const;
  // The same of what fits a chunk. Answers the first that is not finite, or a larger number.
  absl::StatusOr<uint64_t> ServeChunk(const ElementsSpec& spec, int64_t first,
                                      std::span<const std::byte> x, std::span<std::byte> to) const;

  cuda::Card& card_;
  const MatrixShape shape_;
  void* const data_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_CUDA_BACKEND_ELEMENTS_H_
