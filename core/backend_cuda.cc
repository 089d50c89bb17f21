#include "core/backend_cuda.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/cuda/advance.h"
#include "core/cuda/card.h"
#include "core/cuda/pinned_pool.h"
#include "core/cuda_backend/elements.h"
#include "core/cuda_backend/step.h"

namespace fisherd::core {
namespace {

using cuda::Card;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kKeptPinned = 2048 * kMiB;
// Of a card: for the driver, the kernels, and lanes.
constexpr int64_t kSlack = 512 * kMiB;
// One step's rows may have this part of the card's memory; as much again is for the step beside it.
constexpr int64_t kStepParts = 16;
constexpr int64_t kLeastStep = 64 * kMiB;

class PinnedMemory final : public HostMemory {
 public:
  void* Allocate(size_t bytes) override { return pool_.Allocate(bytes); }
  void Free(void* memory, size_t bytes) override { pool_.Free(memory, bytes); }
  int64_t bytes() const { return pool_.bytes(); }

 private:
  cuda::PinnedPool pool_{kKeptPinned};
};

class BackendCuda final : public DeviceBackend {
 public:
  BackendCuda(std::unique_ptr<Card> card, const DeviceOptions& options)
      : card_(std::move(card)),
        precision_(options.tf32 ? cuda::Precision::kTf32 : cuda::Precision::kFloat32),
        name_(absl::StrCat(DeviceName(*card_), " (", card_->name(), options.tf32 ? ", tf32" : "",
                           ")")) {
    const int64_t most = card_->memory().free - kSlack;
    const int64_t memory = options.memory > 0 ? std::min(options.memory, most) : most;
    step_limit_ = std::max(memory / kStepParts, kLeastStep);
    state_budget_ = std::max<int64_t>(memory - 2 * step_limit_, 0);
  }

  std::string name() const override { return name_; }
  std::string device() const override { return DeviceName(*card_); }
  std::unique_ptr<Matrix> NewMatrix(const MatrixShape& shape) override {
    void* const data = card_->Allocate(shape.bytes());
    if (data == nullptr) return nullptr;
    return std::make_unique<Matrix>(shape, std::make_unique<CudaElements>(*card_, shape, data));
  }
  HostMemory* batch_memory() override { return &batch_memory_; }
  int64_t step_limit() const override { return step_limit_; }
  int64_t state_budget() const override { return state_budget_; }
  absl::Status Check() const override { return CheckCard(*card_); }

  double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) override {
    const auto& source = static_cast<const CudaElements&>(*from.device());
    const auto& target = static_cast<const CudaElements&>(*to.device());
    return AdvanceOnCard(*card_, step, precision_, to.shape(), source.data(), target.data());
  }

  Stats stats() const override {
    const Card::Memory memory = card_->memory();
    const Card::Counts counts = card_->counts();
    return {.memory_bytes = memory.bytes,
            .free_bytes = memory.free,
            .kernel_seconds = counts.kernel_seconds,
            .copy_seconds = counts.copy_seconds,
            .bytes_to_device = counts.bytes_to_card,
            .bytes_from_device = counts.bytes_from_card,
            .pinned_bytes = batch_memory_.bytes()};
  }

 private:
  const std::unique_ptr<Card> card_;
  const cuda::Precision precision_;
  const std::string name_;
  PinnedMemory batch_memory_;
  int64_t step_limit_ = 0;
  int64_t state_budget_ = 0;
};

}  // namespace

Devices FindCudaDevices(const DeviceOptions& options) {
  Devices devices;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();
    devices.why_none = cudaGetErrorString(error);
    return devices;
  }
  devices.why_none = "there is no GPU";
  for (int index = 0; index < count; ++index) {
    std::string why_not;
    if (std::unique_ptr<Card> card = Card::Open(index, why_not)) {
      devices.found.push_back(std::make_unique<BackendCuda>(std::move(card), options));
    } else {
      devices.why_none = absl::StrCat("cuda:", index, " cannot be used: ", why_not);
    }
  }
  return devices;
}

}  // namespace fisherd::core
