#include "core/placement.h"

#include "core/error.h"

namespace fisherd::core {
namespace {

std::unique_ptr<Placement::Home> NewHome(const BackendMemory& memory) {
  return std::unique_ptr<Placement::Home>(
      new Placement::Home{memory.backend, ByteBudget(memory.state_budget)});
}

}  // namespace

Placement::Placement(const BackendMemory& host, std::span<const BackendMemory> devices,
                     BackendChoice usual)
    : host_(NewHome(host)), usual_(usual) {
  for (const BackendMemory& device : devices) devices_.push_back(NewHome(device));
}

Placement::Home* Placement::Roomiest() const {
  Home* best = nullptr;
  for (const auto& device : devices_) {
    if (!device->backend->Check().ok()) continue;
    if (best == nullptr || device->left() > best->left()) best = device.get();
  }
  return best;
}

absl::StatusOr<Placement::Home*> Placement::Choose(BackendChoice wanted, int64_t bytes) {
  if (wanted == BackendChoice::kAny) wanted = usual_;
  if (wanted == BackendChoice::kCpu) return host_.get();
  Home* const device = Roomiest();
  if (wanted == BackendChoice::kAny) {
    return device != nullptr && device->left() >= bytes ? device : host_.get();
  }
  if (device != nullptr) return device;
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kNoDevice,
                   devices_.empty() ? "backend is CUDA, and this server has no GPU"
                                    : "backend is CUDA, and this server's GPUs have failed",
                   {{"field", "backend"}});
}

Placement::Home& Placement::ChooseAgain(BackendChoice wanted, int64_t bytes) {
  const absl::StatusOr<Home*> home = Choose(wanted, bytes);
  return home.ok() ? **home : *host_;
}

}  // namespace fisherd::core
